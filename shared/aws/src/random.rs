//! The one place where randomness is made, by the operating system's generator.

/// # Panics
/// If the operating system has no randomness to give: nothing safe could be done then.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}
