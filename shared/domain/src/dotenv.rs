//! Files of variables, one `KEY=value` a line: `.env`, as shells and most tools read it.
//!
//! - `export ` before a key, blank lines and lines that begin with `#` mean nothing.
//! - A bare value ends with its line, or before a blank and `#`; blanks around it are not part of it.
//! - `'…'` is taken as it is. In `"…"`, `\n`, `\r`, `\t`, `\"`, `\\`, `\$` and ``\` `` stand for what they stand for elsewhere.
//!   Both may go on over lines; after them only a comment may follow.
//! - Nothing is expanded: `$NAME` is a text like any other.
//! - CRLF ends a line as LF does; other line breaks (CR alone, VT, FF, U+0085, U+2028, U+2029) are refused outside quotes, and a byte order mark before the first is left out.

mod reading;
mod writing;

pub use reading::{Line, read};
pub use writing::write;

#[cfg(test)]
mod tests;
