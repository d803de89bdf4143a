//! One row a stream (RFC 4180: a header, CRLF, quotes where needed). Unknown is an empty field.

use csv::{Terminator, WriterBuilder};

use crate::types::StreamRow;

/// Rows as text.
///
/// # Errors
/// None that can happen with rows of one shape; the crate's own words if it does.
pub(super) fn render(rows: &[StreamRow]) -> Result<String, String> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(|error| error.to_string())?;
    }
    if rows.is_empty() {
        // The crate writes the header with the first row.
        let mut one = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
        one.serialize(StreamRow::default()).map_err(|error| error.to_string())?;
        let text = one.into_inner().map_err(|error| error.to_string())?;
        let header = text.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        return String::from_utf8(header.to_vec()).map_err(|error| error.to_string());
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_a_row_and_unknown_is_empty() {
        let row = StreamRow {
            identity: "a,\"b\"\r\nc".to_owned(),
            expected: 7,
            loss_rate: Some(0.5),
            ..StreamRow::default()
        };
        let text = render(&[row.clone(), row.clone()]).unwrap();
        assert!(text.contains("\"a,\"\"b\"\"\r\nc\"") && text.ends_with("\r\n"), "{text}");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<StreamRow> = reader.deserialize().map(Result::unwrap).collect();
        assert_eq!(rows, [row.clone(), row]);
        let header = text.lines().next().unwrap();
        assert!(header.starts_with("host,identity,room,cohort,"), "{header}");
        assert!(text.contains(",0.5,"), "{text}");
    }

    #[test]
    fn without_streams_there_is_still_a_header() {
        let text = render(&[]).unwrap();
        assert!(text.starts_with("host,identity,") && text.ends_with("\r\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
