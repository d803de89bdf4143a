#![no_main]

stampede_fuzz::target!("client_media");
