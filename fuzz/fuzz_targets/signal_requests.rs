#![no_main]

stampede_fuzz::target!("signal_requests");
