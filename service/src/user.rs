//! What a user is. Values are parsed once at the edge; whoever holds one need not check it again.

use std::borrow::Cow;
use std::fmt;

use email_address::EmailAddress;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

/// Longest name, in Unicode scalar values, after trimming.
pub const NAME_MAX_CHARS: usize = 200;

/// Longest e-mail address, in bytes of UTF-8 (RFC 5321 §4.5.3.1.3 leaves 254 of a path's 256).
pub const EMAIL_MAX_BYTES: usize = 254;

/// A user's number: 1 to 2^63-1, so that every store and every JSON reader can hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UserId(u64);

impl UserId {
    /// The largest id there can be.
    pub const MAX: u64 = i64::MAX as u64;

    /// The id of that number, or `None` outside 1 to [`UserId::MAX`].
    pub fn new(number: u64) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The id written as plain decimal digits, the only form that a path may have: no sign, no
    /// leading zero, no white space.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        canonical.then(|| text.parse().ok()).flatten().and_then(Self::new)
    }

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name: 1 to [`NAME_MAX_CHARS`] characters, trimmed of white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Trims and checks.
    ///
    /// # Errors
    /// What is wrong with it, for the person who sent it.
    pub fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let name = text.trim();
        match name.chars().count() {
            0 => Err("must have at least 1 character that is not white space".into()),
            n if n > NAME_MAX_CHARS => Err(format!("must have at most {NAME_MAX_CHARS} characters, has {n}").into()),
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// A name that was parsed before it was stored.
    pub(crate) fn from_store(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The trimmed name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An e-mail address (RFC 5321, internationalised by RFC 6531), kept as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// Checks without changing anything.
    ///
    /// # Errors
    /// What is wrong with it, for the person who sent it.
    pub fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.len() > EMAIL_MAX_BYTES {
            return Err(format!("must have at most {EMAIL_MAX_BYTES} bytes, has {}", text.len()).into());
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("must not contain white space or control characters".into());
        }
        let options = email_address::Options::default().without_display_text();
        EmailAddress::parse_with_options(text, options)
            .map_err(|cause| format!("must be an e-mail address such as ada@example.org: {cause}"))?;
        Ok(Self(text.to_owned()))
    }

    /// An address that was parsed before it was stored.
    pub(crate) fn from_store(email: &str) -> Self {
        Self(email.to_owned())
    }

    /// The address as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two addresses are compared by: the lower case of their NFC form. An accent makes
    /// another address; case and the way an accent is encoded do not.
    pub fn key(&self) -> String {
        self.0.nfc().collect::<String>().to_lowercase()
    }
}

/// The time to the microsecond, which is what stores keep.
pub fn now() -> Timestamp {
    let exact = Timestamp::now();
    // A time that was just told lies within what can be told.
    Timestamp::from_microsecond(exact.as_microsecond()).unwrap_or(exact)
}

/// A user as it is stored and as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Given by the store, never used twice.
    pub id: UserId,
    /// What the user is called.
    pub name: Name,
    /// No two users have addresses that compare equal, see [`Email::key`].
    pub email: Email,
    /// Whether the account is in use.
    pub active: bool,
    /// When the user was created, to the microsecond.
    #[serde(serialize_with = "rfc3339_micros")]
    pub created_at: Timestamp,
    /// When the user last changed, never before `created_at`.
    #[serde(serialize_with = "rfc3339_micros")]
    pub updated_at: Timestamp,
}

/// RFC 3339 in UTC with exactly six fraction digits and `Z`.
fn rfc3339_micros<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    let mut text = String::with_capacity("2026-11-25T00:00:00.000000Z".len());
    PRINTER.print_timestamp(time, &mut text).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

/// All that a client chooses of a user: what POST creates and PUT puts in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// See [`User::name`].
    pub name: Name,
    /// See [`User::email`].
    pub email: Email,
    /// See [`User::active`].
    pub active: bool,
}

/// A change to some of a user: `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPatch {
    /// See [`User::name`].
    pub name: Option<Name>,
    /// See [`User::email`].
    pub email: Option<Email>,
    /// See [`User::active`].
    pub active: Option<bool>,
}

impl From<NewUser> for UserPatch {
    fn from(user: NewUser) -> Self {
        Self { name: Some(user.name), email: Some(user.email), active: Some(user.active) }
    }
}

impl UserPatch {
    /// The user after the change at `now`, or `None` where it changes nothing. A clock that went
    /// backwards does not take `updated_at` along.
    pub fn apply(self, user: &User, now: Timestamp) -> Option<User> {
        let changed = User {
            id: user.id,
            name: self.name.unwrap_or_else(|| user.name.clone()),
            email: self.email.unwrap_or_else(|| user.email.clone()),
            active: self.active.unwrap_or(user.active),
            created_at: user.created_at,
            updated_at: user.updated_at,
        };
        (changed != *user).then(|| User { updated_at: now.max(user.updated_at), ..changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_decimal_digits_within_bounds() {
        assert_eq!(UserId::parse("1").map(UserId::get), Some(1));
        assert_eq!(UserId::parse("9223372036854775807").map(UserId::get), Some(UserId::MAX));
        for text in ["", "0", "-1", "+1", "01", " 1", "1.0", "1e3", "٣", "9223372036854775808", "18446744073709551616"]
        {
            assert_eq!(UserId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_are_trimmed_and_counted_in_characters() {
        assert_eq!(Name::parse(" \u{2003}Ada \n").unwrap().as_str(), "Ada");
        assert!(Name::parse(&"🦀".repeat(NAME_MAX_CHARS)).is_ok());
        assert!(Name::parse(&"🦀".repeat(NAME_MAX_CHARS + 1)).is_err());
        assert!(Name::parse("\t \u{a0}").is_err());
        assert_eq!(Name::parse("a\0\"b").unwrap().as_str(), "a\0\"b");
    }

    #[test]
    fn emails_are_kept_as_given_and_compared_by_folded_nfc() {
        let email = Email::parse("Jose\u{301}@Example.ORG").unwrap();
        assert_eq!(email.as_str(), "Jose\u{301}@Example.ORG");
        assert_eq!(email.key(), Email::parse("JOSÉ@example.org").unwrap().key());
        assert_ne!(email.key(), Email::parse("jose@example.org").unwrap().key());
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let too_long = format!("{}@{}.org", "a".repeat(64), "b".repeat(190));
        for text in [
            "",
            "ada",
            "@x.org",
            "ada@",
            "a b@x.org",
            "ada@x.org ",
            "ada@x..org",
            "a\0@x.org",
            "Ada <ada@x.org>",
            &too_long,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_have_six_fraction_digits_and_z() {
        let user = sample();
        let json = serde_json::to_value(&user).unwrap();
        assert_eq!(json["created_at"], "1970-01-01T00:00:00.000001Z");
        assert_eq!(json["updated_at"], "1970-01-01T00:00:02.000000Z");
    }

    #[test]
    fn a_patch_that_changes_nothing_says_so_and_time_never_goes_back() {
        let user = sample();
        let same = UserPatch { active: Some(true), ..UserPatch::default() };
        assert_eq!(same.apply(&user, Timestamp::MAX), None);
        let other = UserPatch { active: Some(false), ..UserPatch::default() };
        let changed = other.apply(&user, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(changed.updated_at, user.updated_at);
        assert!(!changed.active);
    }

    fn sample() -> User {
        User {
            id: UserId::new(1).unwrap(),
            name: Name::parse("Ada").unwrap(),
            email: Email::parse("ada@example.org").unwrap(),
            active: true,
            created_at: Timestamp::from_microsecond(1).unwrap(),
            updated_at: Timestamp::from_microsecond(2_000_000).unwrap(),
        }
    }
}
