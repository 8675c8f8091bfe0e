//! What a log may forget (`retention.ms`, `retention.bytes`), decided over segments.

use crate::ids::Offset;
use crate::time::Timestamp;
use crate::wal::SegmentInfo;

/// A topic's bounds; `None` is "keep for ever".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub age_ms_max: Option<i64>,
    pub bytes_max: Option<u64>,
}

/// Where the log may start from now on: a segment border at or below `high_watermark`. `None` if nothing is to go.
///
/// By age a segment goes when its newest record is too old; by size, oldest first, as long as what remains is still at
/// least the bound. As in Kafka the last segment goes too when it is too old, which the caller makes possible by rolling
/// it first.
pub fn start_after_retention(
    segments: &[SegmentInfo],
    high_watermark: Offset,
    retention: &Retention,
    now: Timestamp,
) -> Option<Offset> {
    let mut surplus = retention.bytes_max.map(|bytes_max| {
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        bytes.saturating_sub(bytes_max)
    });
    let mut start = None;
    for segment in segments.iter().take_while(|segment| segment.sealed && segment.end <= high_watermark) {
        let too_old = retention.age_ms_max.is_some_and(|age_ms_max| {
            segment.max_timestamp != Timestamp::NONE && now.0.saturating_sub(segment.max_timestamp.0) > age_ms_max
        });
        let too_many = surplus.is_some_and(|surplus| surplus > 0 && segment.bytes <= surplus);
        if !too_old && !too_many {
            break;
        }
        surplus = surplus.map(|surplus| surplus.saturating_sub(segment.bytes));
        start = Some(segment.end);
    }
    start
}

/// Whether the last segment must be sealed: it is older than `segment.ms`, or all of it is too old to keep.
pub fn must_roll(
    last: &SegmentInfo,
    retention: &Retention,
    segment_ms: i64,
    first_append: Timestamp,
    now: Timestamp,
) -> bool {
    if last.base == last.end {
        return false;
    }
    let expired = retention.age_ms_max.is_some_and(|age_ms_max| {
        last.max_timestamp != Timestamp::NONE && now.0.saturating_sub(last.max_timestamp.0) > age_ms_max
    });
    expired || now.0.saturating_sub(first_append.0) > segment_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<SegmentInfo> {
        (0..4)
            .map(|n| SegmentInfo {
                base: Offset(n * 10),
                end: Offset(n * 10 + 10),
                bytes: 100,
                max_timestamp: Timestamp(1000 * n),
                sealed: n < 3,
            })
            .collect()
    }

    fn start(age_ms_max: Option<i64>, bytes_max: Option<u64>, high_watermark: i64) -> Option<i64> {
        let retention = Retention { age_ms_max, bytes_max };
        start_after_retention(&segments(), Offset(high_watermark), &retention, Timestamp(3000)).map(|offset| offset.0)
    }

    #[test]
    fn the_oldest_go_by_age_or_by_size_but_never_past_the_watermark() {
        assert_eq!(start(None, None, 40), None);
        assert_eq!(start(Some(1500), None, 40), Some(20));
        assert_eq!(start(Some(1500), None, 15), Some(10));
        assert_eq!(start(None, Some(250), 40), Some(10));
        assert_eq!(start(None, Some(0), 40), Some(30));
        assert_eq!(start(None, Some(1 << 40), 40), None);
    }

    #[test]
    fn the_last_segment_is_sealed_when_it_is_old() {
        let last = segments()[3];
        let keep = Retention::default();
        assert!(!must_roll(&last, &keep, 5000, Timestamp(0), Timestamp(4000)));
        assert!(must_roll(&last, &keep, 5000, Timestamp(0), Timestamp(6000)));
        let short = Retention { age_ms_max: Some(500), bytes_max: None };
        assert!(must_roll(&last, &short, 1 << 40, Timestamp(0), Timestamp(4000)));
        assert!(!must_roll(&SegmentInfo { end: last.base, ..last }, &short, 0, Timestamp(0), Timestamp(1 << 40)));
    }
}
