//! One row a stream (RFC 4180: a header, CRLF, quotes where needed). Unknown is an empty field. Text
//! that a spreadsheet would take for a formula has an apostrophe in front; see `inert`.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use csv::{Terminator, Writer, WriterBuilder};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::types::StreamRow;

/// The columns of a row in their order. A row that has counters flattened into it can't be written
/// by the crate itself.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Names, M::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        from.deserialize_map(InOrder)
    }
}

/// Text of which a spreadsheet makes no formula. Identities, rooms and names are anybody's choice, and
/// what begins with one of these characters is run when the file is opened (OWASP, CSV injection; CWE-1236),
/// in full width too: an apostrophe in front makes it text. Numbers are none of this.
fn inert(text: &str) -> Cow<'_, str> {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => {
            format!("'{text}").into()
        }
        _ => text.into(),
    }
}

/// Rows as text. All have the columns of a row of defaults.
///
/// # Errors
/// A row that is no flat object.
pub fn text<T: Serialize + Default>(rows: &[T]) -> Result<String, Box<dyn Error>> {
    let Names(names) = serde_json::from_str(&serde_json::to_string(&T::default())?)?;
    let mut writer: Writer<Vec<u8>> =
        WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(&names)?;
    for row in rows {
        let row = serde_json::to_value(row)?;
        let cell = |name: &String| match &row[name] {
            Value::Null => String::new(),
            Value::String(text) => inert(text).into_owned(),
            other => other.to_string(),
        };
        writer.write_record(names.iter().map(cell))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Streams as text.
///
/// # Errors
/// None that can happen with rows of one shape; the crate's own words if it does.
pub(super) fn render(rows: &[StreamRow]) -> Result<String, String> {
    text(rows).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_a_row_and_unknown_is_empty() {
        let mut row = StreamRow {
            identity: "a,\"b\"\r\nc".to_owned(),
            loss_rate: Some(0.5),
            ..StreamRow::default()
        };
        row.counters.packets.expected = 7;
        row.counters.freezes.total_s.0 = std::time::Duration::from_millis(1_500);
        let text = render(&[row.clone(), row.clone()]).unwrap();
        assert!(text.contains("\"a,\"\"b\"\"\r\nc\"") && text.ends_with("\r\n"), "{text}");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let names = reader.headers().unwrap().clone();
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!((rows.len(), &rows[0]), (2, &rows[1]));
        let cell = |name: &str| &rows[0][names.iter().position(|one| one == name).unwrap()];
        assert_eq!((cell("identity"), cell("expected")), (&*row.identity, "7"));
        assert_eq!((cell("freezes_total_s"), cell("frames_decodable")), ("1.5", ""));
        let header = text.lines().next().unwrap();
        assert!(header.starts_with("host,identity,room,cohort,"), "{header}");
        assert!(text.contains(",0.5,"), "{text}");
    }

    #[test]
    fn text_that_begins_as_a_formula_does_is_made_inert_and_numbers_stay_numbers() {
        let begins = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1", "=a,\"b\""];
        for text in begins {
            let row = StreamRow {
                host: Some(text.to_owned()),
                identity: text.to_owned(),
                room: Some(text.to_owned()),
                cohort: Some(text.to_owned()),
                kind: text.to_owned(),
                codec: Some(text.to_owned()),
                mid: text.to_owned(),
                track_id: Some(text.to_owned()),
                loss_rate: Some(-0.5),
                ..StreamRow::default()
            };
            let written = render(&[row]).unwrap();
            let mut reader = csv::Reader::from_reader(written.as_bytes());
            let row = reader.records().next().unwrap().unwrap();
            let inert = row.iter().filter(|cell| **cell == format!("'{text}"));
            assert_eq!(inert.count(), 8, "{written}");
            let first = text.chars().next().unwrap();
            let live = |cell: &&str| cell.starts_with(first) && *cell != "-0.5";
            assert_eq!(row.iter().find(live), None, "{written}");
            assert!(row.iter().any(|cell| cell == "-0.5"), "{written}");
        }
        for text in ["", "a=1", "'=1", "5-1", " =1", "stampede-1"] {
            assert_eq!(inert(text), text);
        }
    }

    #[test]
    fn without_streams_there_is_still_a_header() {
        let text = render(&[]).unwrap();
        assert!(text.starts_with("host,identity,") && text.ends_with("\r\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
