//! A network namespace of its own, with a network in it that really loses datagrams.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stampede_testing::skip;

/// A network namespace with nothing but loopback. Goes away with this value; what still runs in it
/// keeps its network until it ends.
pub(crate) struct Namespace {
    name: String,
}

fn sh(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let failed = || format!("{program} {}: {said}", args.join(" "));
    output.status.success().then_some(()).ok_or_else(failed)
}

impl Namespace {
    /// A new one; `None`, and a skip, where this machine lets nobody make one (no root, no iproute2,
    /// or a kernel without tc's BPF classifier).
    pub(crate) fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("stampede-{}-{number}", std::process::id());
        let made = sh("ip", &["netns", "add", &name]).and_then(|()| {
            let namespace = Self { name };
            namespace.inside("ip", &["link", "set", "lo", "up"])?;
            namespace.inside("tc", &["qdisc", "add", "dev", "lo", "clsact"])?;
            Ok(namespace)
        });
        let needs = "needs root, network namespaces and tc's BPF classifier";
        made.inspect_err(|why| skip(format!("{needs}: {why}"))).ok()
    }

    /// Puts a cable between this one and another, with an address at either end; false, and a skip,
    /// where the kernel has none.
    pub(crate) fn connect(&self, other: &Self, addresses: [&str; 2]) -> bool {
        let ends = ["cable0", "cable1"];
        let cable = ["link", "add", ends[0], "netns", &self.name, "type", "veth", "peer", "name"];
        let made = sh("ip", &[&cable[..], &[ends[1], "netns", &other.name]].concat());
        let made = made.and_then(|()| {
            for ((namespace, end), address) in [self, other].into_iter().zip(ends).zip(addresses) {
                namespace.inside("ip", &["address", "add", address, "dev", end])?;
                namespace.inside("ip", &["link", "set", end, "up"])?;
            }
            Ok(())
        });
        made.inspect_err(|why| skip(format!("needs virtual Ethernet: {why}"))).is_ok()
    }

    /// Does something in here: sockets made by it, and threads that it starts, are in this network.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    fn inside(&self, program: &str, args: &[&str]) -> Result<(), String> {
        sh("ip", &[&["netns", "exec", &self.name, program], args].concat())
    }

    /// What goes before a command so that it runs here.
    pub(crate) fn wrapper(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// From now on the kernel loses one in `one_in` UDP datagrams that come from this port, STUN and
    /// DTLS included, each independently of all others, on their way in: whoever sent them is told
    /// that they left.
    ///
    /// This is what netem does with `loss`, said in a classic BPF program for tc: many kernels come
    /// without netem, which is a module, and netem can't be told to leave TCP and the other
    /// direction alone without classes around it.
    pub(crate) fn lose_from(&self, source_port: u16, one_in: u32) {
        // Linux's include/uapi/linux/filter.h: SKF_AD_OFF (-0x1000) + SKF_AD_RANDOM (56).
        const RANDOM: u32 = 0xffff_f000 + 56;
        let below = u32::MAX / one_in;
        let program = [
            "40 0 0 12".to_owned(),          // ldh ethertype
            "21 0 7 2048".to_owned(),        // IPv4, else pass
            "48 0 0 23".to_owned(),          // ldb protocol
            "21 0 5 17".to_owned(),          // UDP, else pass
            "40 0 0 34".to_owned(),          // ldh source port (no IP options on loopback)
            format!("21 0 3 {source_port}"), // the port, else pass
            format!("32 0 0 {RANDOM}"),      // ld a random number
            format!("53 1 0 {below}"),       // at or above: pass
            "6 0 0 2".to_owned(),            // TC_ACT_SHOT
            "6 0 0 0".to_owned(),            // TC_ACT_OK
        ];
        let bytecode = format!("{},{}", program.len(), program.join(","));
        let filter = ["filter", "add", "dev", "lo", "ingress", "bpf", "direct-action"];
        self.inside("tc", &[&filter[..], &["bytecode", &bytecode]].concat()).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = sh("ip", &["netns", "del", &self.name]);
    }
}
