//! UpdateFeatures (57, KIP-584): which level of what every broker may rely on.
//!
//! All updates of a request take effect or none. A level is finalized only if every registered broker's release can work
//! with it, fenced or not: it could not read the log when it is back.

use super::Decision;
use crate::ids::NodeId;
use crate::metadata::image::Image;
use crate::metadata::records::{
    FeatureLevelRecord, METADATA_VERSION, METADATA_VERSION_LATEST, METADATA_VERSION_MIN, Record,
};
use std::collections::BTreeSet;

/// What an update may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    Upgrade,
    /// Only where nothing is lost by it.
    SafeDowngrade,
    UnsafeDowngrade,
}

/// One feature's new level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    pub name: String,
    /// Zero takes the feature out of use.
    pub level: i16,
    pub kind: UpdateKind,
}

/// Why nothing is updated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFeaturesError {
    #[error("feature {0} is named more than once")]
    Repeated(String),
    #[error("Invalid update version {level} for feature {name}. A feature's level cannot be negative.")]
    Negative { name: String, level: i16 },
    #[error("Invalid update version {level} for feature {name}. This controller does not support this feature.")]
    Unsupported { name: String, level: i16 },
    #[error("Invalid update version {level} for feature {name}. Local controller only supports versions {min}-{max}")]
    OutOfRange { name: String, level: i16, min: i16, max: i16 },
    #[error("Invalid update version {level} for feature {name}. Broker {broker} does not support this version.")]
    Broker { name: String, level: i16, broker: NodeId },
    #[error(
        "Invalid update version {level} for feature {name}. Can't downgrade the version of this feature without \
             setting the upgrade type to either safe or unsafe downgrade."
    )]
    IsDowngrade { name: String, level: i16 },
    #[error("Invalid update version {level} for feature {name}. Can't downgrade to a newer version.")]
    IsUpgrade { name: String, level: i16 },
}

/// Decides on all of them; `validate_only` is the caller's: [`Decision::without_records`].
pub fn update_features(image: &Image, updates: &[FeatureUpdate]) -> Result<Decision<()>, UpdateFeaturesError> {
    let mut named = BTreeSet::new();
    let mut records = Vec::new();
    for update in updates {
        if !named.insert(&update.name) {
            return Err(UpdateFeaturesError::Repeated(update.name.clone()));
        }
        let (name, level) = (update.name.clone(), update.level);
        check(image, update)?;
        let was = image.features().get(&name).copied().unwrap_or(0);
        match update.kind {
            UpdateKind::Upgrade if level < was => return Err(UpdateFeaturesError::IsDowngrade { name, level }),
            UpdateKind::SafeDowngrade | UpdateKind::UnsafeDowngrade if level > was => {
                return Err(UpdateFeaturesError::IsUpgrade { name, level });
            }
            _ => {}
        }
        if level != was {
            let record = FeatureLevelRecord { name, level: i32::from(level), features_epoch: None };
            records.push(Record::FeatureLevel(record));
        }
    }
    Ok(Decision::new(records, ()))
}

fn check(image: &Image, update: &FeatureUpdate) -> Result<(), UpdateFeaturesError> {
    let (name, level) = (update.name.clone(), update.level);
    if level < 0 {
        return Err(UpdateFeaturesError::Negative { name, level });
    }
    // The one feature there is; the others that Kafka has stand for protocols that are not served.
    if name != METADATA_VERSION {
        return Err(UpdateFeaturesError::Unsupported { name, level });
    }
    let (min, max) = (METADATA_VERSION_MIN, METADATA_VERSION_LATEST);
    if !(min..=max).contains(&level) {
        return Err(UpdateFeaturesError::OutOfRange { name, level, min, max });
    }
    let supports =
        |levels: Option<&std::ops::RangeInclusive<i16>>| levels.map_or(level == min, |it| it.contains(&level));
    match image.brokers().values().find(|broker| !supports(broker.features.get(METADATA_VERSION))) {
        Some(broker) => Err(UpdateFeaturesError::Broker { name, level, broker: broker.id }),
        None => Ok(()),
    }
}
