//! How a configuration's text is read: Kafka's types, and the bounds a value must keep.

/// Kafka's types of configurations; the numbers are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// What a value must be besides of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// −1 (the codec's own default) or a level in these bounds.
    Level(i64, i64),
    Fraction,
    OneOf(&'static [&'static str]),
    /// A list of these; it may be empty.
    Subset(&'static [&'static str]),
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// Of a storage engine: letters, digits and hyphens.
    EngineName,
}

/// A value, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    Text(String),
    Number(i64),
    Fraction(f64),
    List(Vec<String>),
}

impl Value {
    /// The number; zero for what is none, which the table's types exclude.
    pub fn as_i64(&self) -> i64 {
        if let Value::Number(number) = self { *number } else { 0 }
    }

    pub fn as_bool(&self) -> bool {
        matches!(self, Value::Boolean(true))
    }

    pub fn as_text(&self) -> &str {
        if let Value::Text(text) = self { text } else { "" }
    }

    pub fn as_list(&self) -> &[String] {
        if let Value::List(list) = self { list } else { &[] }
    }

    pub fn as_f64(&self) -> f64 {
        if let Value::Fraction(number) = self { *number } else { 0.0 }
    }
}

/// A name is a directory's, too, and part of messages.
const ENGINE_NAME_BYTES_MAX: usize = 64;

/// Whether a storage engine may be called so.
pub fn is_engine_name(text: &str) -> bool {
    text.len() <= ENGINE_NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The items of a list; none in an empty text.
pub fn split_list(text: &str) -> Vec<String> {
    if text.trim().is_empty() { Vec::new() } else { text.split(',').map(|item| item.trim().to_owned()).collect() }
}

/// Reads a text, or says in Kafka's words why it cannot be.
pub(super) fn parse(kind: Kind, valid: Valid, text: &str) -> Result<Value, String> {
    let text = text.trim();
    let value = match kind {
        Kind::Boolean if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
        Kind::Boolean if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
        Kind::Boolean => return Err("Expected value to be either true or false".into()),
        Kind::String => Value::Text(text.to_owned()),
        Kind::Int => Value::Number(text.parse::<i32>().map_err(|_| "Not a number of type INT")?.into()),
        Kind::Long => Value::Number(text.parse::<i64>().map_err(|_| "Not a number of type LONG")?),
        Kind::Double => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Fraction(number),
            _ => return Err("Not a number of type DOUBLE".into()),
        },
        Kind::List => Value::List(split_list(text)),
    };
    check(valid, &value)?;
    Ok(value)
}

fn check(valid: Valid, value: &Value) -> Result<(), String> {
    match (valid, value) {
        (Valid::AtLeast(min), Value::Number(number)) if *number < min => Err(format!("Value must be at least {min}")),
        (Valid::Between(min, max) | Valid::Level(min, max), Value::Number(number)) => {
            if matches!(valid, Valid::Level(..)) && *number == -1 || (min..=max).contains(number) {
                Ok(())
            } else {
                Err(format!("Value must be between {min} and {max}"))
            }
        }
        (Valid::Fraction, Value::Fraction(number)) if !(0.0..=1.0).contains(number) => {
            Err("Value must be between 0 and 1".into())
        }
        (Valid::OneOf(names), Value::Text(text)) if !names.contains(&text.as_str()) => {
            Err(format!("String must be one of: {}", names.join(", ")))
        }
        (Valid::Subset(names), Value::List(items)) => match items.iter().find(|item| !names.contains(&item.as_str())) {
            Some(item) => Err(format!("'{item}' is not one of: {}", names.join(", "))),
            None => Ok(()),
        },
        (Valid::EngineName, Value::Text(text)) => {
            if is_engine_name(text) {
                Ok(())
            } else {
                Err(format!(
                    "Not an engine's name: at most {ENGINE_NAME_BYTES_MAX} small letters, digits and hyphens, a letter first"
                ))
            }
        }
        (Valid::ThrottledReplicas, Value::List(items)) => {
            let is_replica = |item: &String| {
                item.split_once(':').is_some_and(|(partition, broker)| {
                    partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
                })
            };
            if items.len() == 1 && items[0] == "*" || items.iter().all(is_replica) {
                Ok(())
            } else {
                Err("must be '*' or a list of [partition]:[broker],…".into())
            }
        }
        _ => Ok(()),
    }
}
