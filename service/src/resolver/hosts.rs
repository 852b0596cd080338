//! The hosts file, see hosts(5).

use std::net::IpAddr;

use super::is_reachable;

/// The addresses of a name that can be reached; none where the file has none.
pub fn find(text: &str, host: &str) -> Option<Vec<IpAddr>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let addresses = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok().filter(|address| is_reachable(*address))?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    Some(addresses.collect()).filter(|addresses: &Vec<_>| !addresses.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_anywhere_on_a_line_and_on_several() {
        let text = "127.0.0.1 localhost\n\n# 10.0.0.9 db\n10.0.0.1\tother DB.example db # db2\n10.0.0.2 db\nx db\n";
        let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert_eq!(find(text, "db"), Some(addresses.clone()));
        assert_eq!(find(text, "db.example."), Some(addresses[..1].to_vec()));
        for absent in ["db2", "example", "10.0.0.1", ""] {
            assert_eq!(find(text, absent), None, "{absent}");
        }
    }
}
