//! Of what has ended the oldest is forgotten.

use super::*;

#[test]
fn rows_beyond_the_maximum_push_out_the_oldest() {
    let mut ended = EndedRows::default();
    let (room, identity): (Arc<str>, Arc<str>) = ("room".into(), "viewer".into());
    for number in 0..=ENDED_ROWS_MAX {
        let row = SubscriberTrackLedger { track_sid: number.to_string(), ..Default::default() };
        ended.keep_subscribed(room.clone(), identity.clone(), row);
    }
    ended.keep_published(room, PublishedTrackLedger::default());
    let Rows { subscribed, published, congestion } = ended.rows();
    assert_eq!((subscribed.len(), published.len(), congestion.len()), (ENDED_ROWS_MAX, 1, 0));
    assert_eq!(subscribed[0].2.track_sid, "1");
}
