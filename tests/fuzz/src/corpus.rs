//! The inputs that a target starts from, as they are kept in the repository: one file per target, a line per input, in
//! hexadecimal. `#` begins a comment.

/// Reads a corpus file; `Err` names the line that is none.
pub fn parse(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    let lines = text.lines().enumerate();
    let inputs = lines.filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
    inputs.map(|(index, line)| from_hex(line.trim()).ok_or(index + 1)).collect()
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2);
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8)).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_is_read_as_it_is_written_and_a_line_that_is_no_hexadecimal_is_named() {
        let text = format!("# two of them\n{}\n\n{}\n", to_hex(&[0, 0xff, 0x1a]), to_hex(&[]));
        assert_eq!(parse(&text), Ok(vec![vec![0, 0xff, 0x1a]]));
        assert_eq!(parse("00\n0g\n"), Err(2));
        assert_eq!(parse("000\n"), Err(1));
    }
}
