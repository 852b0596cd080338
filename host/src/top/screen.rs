//! A picture on a terminal that is drawn again and again in the same place.

use std::io::{self, Stdout, Write};

/// The terminal's second screen (xterm's control sequences, which all terminals of today know).
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// To the upper left corner, and away with what is behind it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The second screen; the first one is back as it was when this is dropped.
#[derive(Debug)]
pub struct Screen {
    out: Stdout,
}

impl Screen {
    /// Changes to the second screen.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn enter() -> io::Result<Self> {
        let screen = Self { out: io::stdout() };
        screen.write(ENTER)?;
        Ok(screen)
    }

    /// Draws in place of what was drawn before. What does not fit is cut.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (rows, columns) = self.size();
        self.write(&picture(lines, rows, columns))
    }

    /// Rows and columns; as many as there may be where the terminal does not know.
    fn size(&self) -> (usize, usize) {
        let known = |number: u16| if number == 0 { usize::MAX } else { number.into() };
        rustix::termios::tcgetwinsize(&self.out)
            .map_or((usize::MAX, usize::MAX), |size| (known(size.ws_row), known(size.ws_col)))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.write(LEAVE);
    }
}

/// What draws these lines, in one piece so that nothing flickers. Nothing is cleared behind a line, as that would
/// take the last character of one that is as wide as the screen.
fn picture(lines: &[String], rows: usize, columns: usize) -> String {
    let cut = |line: &String| line.chars().take(columns).collect::<String>();
    let lines: Vec<String> = lines.iter().take(rows).map(cut).collect();
    format!("{CLEAR}{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut() {
        let lines = ["abcdef", "ghi", "jkl"].map(str::to_owned);
        assert_eq!(picture(&lines, 2, 4), "\x1b[H\x1b[Jabcd\nghi");
        assert_eq!(picture(&lines, usize::MAX, usize::MAX), "\x1b[H\x1b[Jabcdef\nghi\njkl");
    }
}
