//! A Service: rules of nftables that spread new connections over pods, as kube-proxy makes them.

use std::net::SocketAddr;

use crate::node::Node;

/// The Service's address, which no machine has.
const ADDRESS: &str = "10.96.0.10:80";

/// A Service in front of pods.
pub struct Service<'n> {
    node: &'n Node,
}

impl<'n> Service<'n> {
    /// One without pods yet.
    pub fn on(node: &'n Node) -> Self {
        // So that packets to an address outside of every network leave for somewhere, on which the rules then decide.
        node.run(&["ip", "route", "add", "10.96.0.0/16", "dev", "lo"]);
        Self { node }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        ADDRESS.parse().unwrap()
    }

    /// Sends new connections to these pods from now on; those that there are stay where they are.
    pub fn lead_to(&self, pods: &[SocketAddr]) {
        let (address, port) = ADDRESS.split_once(':').unwrap();
        let each: Vec<String> =
            pods.iter().enumerate().map(|(n, pod)| format!("{n} : {} . {}", pod.ip(), pod.port())).collect();
        let to = format!("numgen random mod {} map {{ {} }}", pods.len(), each.join(", "));
        let rules = format!(
            "table ip service {{}}\nflush table ip service\ntable ip service {{\n  chain output {{\n    \
             type nat hook output priority -100;\n    ip daddr {address} tcp dport {port} dnat ip to {to}\n  }}\n  \
             chain back {{\n    type nat hook postrouting priority 100;\n    ip saddr 127.0.0.0/8 masquerade\n  }}\n}}\n"
        );
        self.node.run_with_input(&["nft", "-f", "-"], &rules);
    }
}
