//! What can go wrong while results are drawn and written.

/// Why a figure or a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// plotters refused to draw.
    #[error("a figure could not be drawn: {0}")]
    Draw(String),
    /// A heat map whose parts do not fit each other.
    #[error("the heat map of `{0}` is {1:?}, with {2} groups and {3} networks: all must be as long")]
    HeatMap(String, (usize, usize), usize, usize),
    /// An SVG file that could not be painted, or a picture that could not be packed.
    #[error("`{0}` could not be made a PNG file: {1}")]
    Png(String, String),
    /// The template and what it is given do not fit.
    #[error("the page could not be written")]
    Page(#[from] minijinja::Error),
}

/// With this crate's errors.
pub type Result<T> = std::result::Result<T, Error>;
