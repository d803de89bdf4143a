#![no_main]

stampede_fuzz::target!("payloads");
