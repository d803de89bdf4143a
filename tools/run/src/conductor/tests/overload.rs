//! Workers that take no more commands.

use super::*;
use crate::participant::{MAILBOX_PAUSE, MAILBOX_TRIES};

/// What becomes of a subscriber whose worker has room for so many commands, and never again.
async fn with_room_for(commands: usize) -> Played {
    let rig = Rig { full_from: Some(commands), ..Rig::new() };
    rig.play(one_subscriber(), async |_, mut socket| {
        socket.admit().await;
        socket.attend().await;
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_for_long_ends_and_it_is_the_generator_that_is_overloaded() {
    let patience = MAILBOX_PAUSE * MAILBOX_TRIES as u32;
    // No room for a peer, and none for what its websocket brings.
    for commands in [0, 1] {
        let played = with_room_for(commands).await;
        assert_eq!(played.joins.errors.get("worker_overloaded"), Some(&1), "{commands}");
        assert_eq!(played.joins.errors.len(), 1);
        assert_eq!(played.identities.len(), commands);
        assert!(played.end >= patience, "{:?}", played.end);
    }
}
