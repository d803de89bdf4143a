#![allow(unreachable_pub, reason = "declarations are public wherever they stand")]

use std::time::Duration;

use serde_json::json;

use super::*;

counters! {
    /// A part.
    pub struct Part: Stream {
        /// How many.
        count: u64 = Times, Lower;
        /// The longest: in whatever way.
        longest_s: Longest = Seconds, Lower;
    }
}

counters! {
    /// All kinds of counters.
    pub struct All: Peer {
        /// Packets that came. And more about
        /// them.
        packets: u64 = Packets, Higher, column "came", metric "packets_that_came";
        /// Known only sometimes.
        maybe as "perhaps": Option<u64> = Frames, Neither;
        /// Together.
        total_s: Seconds = Seconds, Lower;
        /// A group.
        part: Part;
        /// A group beside the others.
        flat (flatten): Flat;
        /// A group that is elsewhere.
        apart (skip): Part;
    }
}

counters! {
    /// Beside others.
    pub struct Flat: Worker {
        /// Bytes.
        bytes: u64 = Bytes, Neither;
    }
}

fn some() -> All {
    let part = Part { count: 2, longest_s: Longest(Duration::from_millis(40)) };
    let total_s = Seconds(Duration::from_micros(1_234_567));
    All { packets: 5, maybe: Some(3), total_s, part, flat: Flat { bytes: 7 }, apart: part }
}

#[test]
fn a_declaration_is_a_row_of_the_table() {
    let names = |name: fn(&Counter) -> &str| All::table().iter().map(name).collect::<Vec<_>>();
    let keys = ["packets", "perhaps", "total_s", "part.count", "part.longest_s", "bytes"];
    assert_eq!(names(|one| &one.key), keys);
    let columns = ["came", "perhaps", "total_s", "part_count", "part_longest_s", "bytes"];
    assert_eq!(names(|one| &one.column), columns);
    assert_eq!(
        names(|one| &one.metric),
        [
            "packets_that_came",
            "perhaps",
            "total_seconds",
            "part_count",
            "part_longest_seconds",
            "bytes"
        ]
    );
    let [packets, .., longest, bytes] = All::table() else { panic!() };
    assert_eq!(packets.help, "Packets that came. And more about them.");
    assert_eq!((packets.short_help(), packets.unit), ("Packets that came", Unit::Packets));
    assert_eq!((longest.short_help(), longest.better), ("The longest", Better::Lower));
    assert_eq!(
        (packets.scope, longest.scope, bytes.scope),
        (Scope::Peer, Scope::Stream, Scope::Worker)
    );
    assert!(packets.sum && !longest.sum);
}

#[test]
fn sums_and_differences_take_every_counter() {
    let mut sum = some();
    sum.merge(&All { maybe: None, ..some() });
    let longest_s = Longest(Duration::from_millis(40));
    assert_eq!((sum.packets, sum.maybe, sum.flat.bytes), (10, Some(3), 14));
    assert_eq!((sum.part, sum.apart.count), (Part { count: 4, longest_s }, 4));
    assert_eq!(sum.total_s.0, Duration::from_micros(2_469_134));
    assert_eq!(sum.since(&All { maybe: None, ..some() }), some());
    assert_eq!(All::default().since(&some()).packets, 0, "never below zero");
    let known = All::sum_of([some(), All { maybe: None, ..some() }]).unwrap();
    assert_eq!(known, All { maybe: None, ..sum });
    assert_eq!(All::sum_of([]), None);
    assert_eq!(Figure::at_least(&All::default(), &some()), some());
}

#[test]
fn what_is_written_is_read_and_what_is_missing_is_nothing() {
    let written = serde_json::to_value(some()).unwrap();
    let part = json!({"count": 2, "longest_s": 0.04});
    let expected = json!({"packets": 5, "perhaps": 3, "total_s": 1.235, "part": part, "bytes": 7});
    assert_eq!(written, expected);
    let read: All = serde_json::from_value(written).unwrap();
    let total_s = Seconds(Duration::from_millis(1_235));
    assert_eq!(read, All { apart: Part::default(), total_s, ..some() });
    assert_eq!(serde_json::from_value::<All>(json!({})).unwrap(), All::default());
    assert!(serde_json::from_value::<All>(json!({"total_s": -1.0})).is_err());
    let schema = schemars::schema_for!(All).to_value();
    let described = &schema["properties"]["total_s"];
    assert_eq!(
        (&described["type"], &described["description"]),
        (&json!("number"), &json!("Together."))
    );
    assert!(schema["properties"]["bytes"].is_object());
}

#[test]
fn columns_are_those_of_streams_and_are_read_again() {
    let row = Columns(some());
    let written = serde_json::to_value(row).unwrap();
    assert_eq!(written, json!({"part_count": 2, "part_longest_s": 0.04}));
    let read: Columns<All> = serde_json::from_value(written).unwrap();
    assert_eq!(read.part, some().part);
    assert_eq!(Columns::<All>::names().collect::<Vec<_>>(), ["part_count", "part_longest_s"]);
    let read = |foreign| serde_json::from_value::<Columns<All>>(foreign);
    let unknown = json!({"part_count": null, "part_longest_s": null, "of a later version": "x"});
    assert_eq!(read(unknown).unwrap(), Columns::default());
    for foreign in [json!("many"), json!(-3), json!(1.5)] {
        assert!(read(json!({"part_count": foreign})).is_err());
    }
    for foreign in [json!("long"), json!(-3)] {
        assert!(read(json!({"part_longest_s": foreign})).is_err());
    }
}

#[test]
fn what_grew_is_a_map_without_what_did_not() {
    let mut grown = Grown::of(&All { packets: 0, ..some() });
    let written = serde_json::to_value(&grown).unwrap();
    let expected = json!({"perhaps": 3, "total_s": 1.235, "part.count": 2, "bytes": 7});
    assert_eq!(written, expected);
    let read: Grown<All> = serde_json::from_value(written).unwrap();
    assert_eq!(read, grown);
    grown.merge(&Grown::of(&some()));
    let figures = ["packets", "perhaps", "bytes", "nothing"].map(|key| grown.get(key));
    assert_eq!(figures, [5.0, 6.0, 14.0, 0.0]);
    let twice: Grown<All> =
        serde_json::from_str(r#"{"bytes": 1, "packets": 3, "bytes": 4}"#).unwrap();
    assert_eq!(serde_json::to_value(&twice).unwrap(), json!({"packets": 3, "bytes": 5}));
    let foreign = json!({"packets": -3.0, "of a later version": 7, "bytes": 1});
    let foreign: Grown<All> = serde_json::from_value(foreign).unwrap();
    assert_eq!((foreign.get("packets"), foreign.get("bytes")), (0.0, 1.0));
}

#[test]
fn packets_and_rates() {
    let mut packets = PacketCounters { missing: 6, unrecovered: 2, ..PacketCounters::default() };
    assert_eq!((packets.loss_rate(), packets.missing_rate()), (None, None));
    packets.expected = 100;
    assert_eq!((packets.loss_rate(), packets.missing_rate()), (Some(0.02), Some(0.06)));
}
