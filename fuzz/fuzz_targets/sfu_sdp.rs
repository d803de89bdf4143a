#![no_main]

stampede_fuzz::target!("sfu_sdp");
