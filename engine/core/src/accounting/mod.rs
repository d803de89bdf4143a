//! Ledgers of received packets and frames, after design.md §3. Pure: arrival times come in.
