//! One decoded image.

use std::borrow::Cow;

/// Where an image's channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[C, H, W]`: one plane after the other.
    Planar,
    /// `[H, W, C]`: pixel by pixel.
    Interleaved,
}

/// An image as it is stored, u8.
#[derive(Debug)]
pub(crate) struct Raster<'a> {
    /// `[C, H, W]`, however the values are laid out.
    pub shape: [usize; 3],
    pub layout: Layout,
    pub pixels: Cow<'a, [u8]>,
}

impl<'a> Raster<'a> {
    /// Number of values between two neighbours of a row, and the position of channel `c`'s first value.
    pub fn stride_and_start(&self, c: usize) -> (usize, usize) {
        let [n_channels, h, w] = self.shape;
        match self.layout {
            Layout::Planar => (1, c * h * w),
            Layout::Interleaved => (n_channels, c),
        }
    }

    /// The values plane by plane.
    pub fn into_planes(self) -> Cow<'a, [u8]> {
        let n_channels = self.shape[0];
        if self.layout == Layout::Planar || n_channels == 1 {
            return self.pixels;
        }
        (0..n_channels).flat_map(|c| self.pixels[c..].iter().step_by(n_channels).copied()).collect()
    }
}
