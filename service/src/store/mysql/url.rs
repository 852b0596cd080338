//! `DATABASE_URL`: `mysql://user:password@host:port/database`, with `?require_ssl=true` if need be.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The port of MySQL where none is given.
const PORT: u16 = 3306;

/// Bytes of a password. Encrypted for a MySQL that does not know it yet (`caching_sha2_password`), a
/// longer one does not fit a key of 2048 bits, and the driver (mysql_common 0.31) panics.
const PASSWORD_MAX: usize = 213;

/// Where the database is and who we are there. Its text never has the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// A name or an IP address; IPv6 without brackets.
    pub host: String,
    /// 3306 where none is given.
    pub port: u16,
    /// Who we are.
    pub user: String,
    /// Empty where none is given.
    pub password: String,
    /// The schema that has our tables.
    pub database: String,
    /// Whether TLS is required; `None` where the URL says nothing about it.
    pub require_ssl: Option<bool>,
}

impl DatabaseUrl {
    /// Reads a URL as people write it, a line end from a file included.
    ///
    /// # Errors
    /// What is wrong and how to mend it, without any part of the URL but the names of parameters.
    pub fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "it must be mysql://USER:PASSWORD@HOST:PORT/DATABASE";
        const ENCODE: &str =
            "percent-encode what is not a letter or digit in user and password (@ is %40, / is %2F, # is %23)";
        let text = text.trim();
        // Before the parser: it would take a raw password apart in its own way.
        let authority = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://"));
        let Some(authority) = authority else { return Err(SHAPE.to_owned()) };
        if authority.matches('@').count() > 1 || authority.contains(['#', '\\', ' ']) {
            return Err(format!("{SHAPE}; {ENCODE}"));
        }
        let url = Url::parse(text).map_err(|cause| format!("{cause}; {SHAPE}; {ENCODE}"))?;
        let decode = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8().ok().filter(|_| is_well_encoded(part));
            decoded.map(|text| text.into_owned()).ok_or_else(|| format!("has a % that encodes nothing; {ENCODE}"))
        };
        let database = decode(url.path().trim_start_matches('/'))?;
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(format!("has no host; {SHAPE}")),
        };
        match (url.username(), database.as_str()) {
            ("", _) => return Err(format!("has no user; {SHAPE}")),
            (_, "") => return Err(format!("has no database; {SHAPE}")),
            (_, name) if name.contains('/') => {
                return Err(format!("has more than a database in its path; {SHAPE}; {ENCODE}"));
            }
            _ => {}
        }
        let password = decode(url.password().unwrap_or_default())?;
        if password.len() > PASSWORD_MAX {
            return Err(format!("has a password of more than {PASSWORD_MAX} bytes, which MySQL's log-in cannot carry"));
        }
        Ok(Self {
            host,
            port: url.port().unwrap_or(PORT),
            user: decode(url.username())?,
            password,
            database,
            require_ssl: require_ssl(&url)?,
        })
    }
}

/// The one parameter there is, as the driver's own URLs have it.
fn require_ssl(url: &Url) -> Result<Option<bool>, String> {
    let mut required = None;
    for (name, value) in url.query_pairs() {
        required = match (name.as_ref(), value.as_ref(), required) {
            ("require_ssl", "true", None) => Some(true),
            ("require_ssl", "false", None) => Some(false),
            ("require_ssl", _, None) => return Err("has a require_ssl that is neither true nor false".to_owned()),
            ("require_ssl", _, Some(_)) => return Err("has require_ssl twice".to_owned()),
            _ => {
                return Err(format!(
                    "has the parameter {name:?}; the only one is require_ssl=true, other settings are variables"
                ));
            }
        };
    }
    Ok(required)
}

/// Whether every % is followed by two hexadecimal digits.
fn is_well_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}/{}", self.host, self.port, self.database),
            false => write!(f, "{}:{}/{}", self.host, self.port, self.database),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DatabaseUrl {
        DatabaseUrl::parse(text).unwrap()
    }

    #[test]
    fn defaults_are_those_of_any_client() {
        let url = parse("mysql://app@db.example.org/users\n");
        let expected = ("db.example.org", 3306, "app", "", "users");
        assert_eq!(
            (url.host.as_str(), url.port, url.user.as_str(), url.password.as_str(), url.database.as_str()),
            expected
        );
        assert_eq!(parse("mariadb://a:b@[::1]:3307/x").host, "::1");
        assert_eq!(parse("mysql://a:b@[::1]:3307/x").to_string(), "[::1]:3307/x");
    }

    #[test]
    fn what_is_percent_encoded_is_decoded() {
        assert_eq!(parse("mysql://us%65r:p%40ss%2Fw%23rd%3F%25%3A@h/d").password, "p@ss/w#rd?%:");
    }

    #[test]
    fn tls_can_be_required_or_not_or_left_open() {
        assert_eq!(parse("mysql://a:b@h/d").require_ssl, None);
        assert_eq!(parse("mysql://a:b@h/d?require_ssl=true").require_ssl, Some(true));
        assert_eq!(parse("mysql://a:b@h/d?require_ssl=false").require_ssl, Some(false));
    }

    #[test]
    fn no_error_shows_any_part_of_a_password() {
        for text in [
            "mysql://app:p@ss/w#rd?%:@host/users",
            "mysql://app:sEcret#1@host/users",
            "mysql://app:sEcret%@host/users",
            "mysql://app:sEcret%zz@host/users",
            "mysql://app:sEcret@host/users?ssl-mode=REQUIRED",
            "mysql://app:sEcret@host",
            "mysql://app:sEcret@/users",
            "mysql://:sEcret@host/users",
            "mysql://app:sEcret@host:port/users",
            "postgres://app:sEcret@host/users",
            "app:sEcret@host/users",
            "mysql://app:s\\Ecret@host/users",
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert!(
                !error.contains("ss/w") && !error.contains("sEcret") && !error.contains("Ecret"),
                "{text}: {error}"
            );
        }
        assert!(DatabaseUrl::parse("mysql://a:p@ss@h/d").unwrap_err().contains("percent-encode"));
        assert!(DatabaseUrl::parse("mysql://a:b@h/d?charset=utf8mb4").unwrap_err().contains("\"charset\""));
        assert!(DatabaseUrl::parse("mysql://a:b@h/d?require_ssl=yes").unwrap_err().contains("neither true nor false"));
        assert!(DatabaseUrl::parse("mysql://a:b@h/d?require_ssl=true&require_ssl=false").is_err());
        assert_eq!(format!("{:?}", parse("mysql://app:sEcret@h/d")), "DatabaseUrl(h:3306/d)");
    }
}
