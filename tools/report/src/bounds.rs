//! The fixed bounds of a run that passes, and of a generator that is believed.

/// A worker busier than this over the whole window has no time left to be on time.
pub const BUSY_RATIO_MAX: f64 = 0.95;
/// A worker whose timers run, or whose datagrams wait, this long at the 99th percentile sends its
/// NACKs and media too late to be taken for a real client.
pub const LATENESS_MS_P99_MAX: f64 = 200.0;
/// A worker that once stood still this long missed seconds of a run in one sample, which no
/// percentile shows.
pub const STALL_MS_MAX: f64 = 1_000.0;
/// Share of datagrams the generator itself may lose (kernel drops and send errors). A client's
/// figures are wrong by as much.
pub const OWN_LOSS_RATE_MAX: f64 = 1e-4;
/// Lost datagrams that are not worth a verdict whatever their share.
pub const OWN_LOSS_MIN: u64 = 10;
/// Share of packets lost for good above which a run can't be called a pass: nobody would watch it.
pub const LOSS_RATE_MAX: f64 = 0.01;
/// Share of the time in which subscribers may get smaller pictures than they asked for before it is not
/// what they asked for that was carried: most of it.
pub const LOWER_RATIO_MAX: f64 = 0.5;
/// Longest wait for a join response, once TCP is connected, that is not called a stall; a
/// busy livekit-server answers within a second.
pub const JOIN_RESPONSE_WAIT_MS_MAX: f64 = 3_000.0;
/// How much of the missing packets a cause must explain to be called the cause.
pub const EXPLAINS: f64 = 0.9;
