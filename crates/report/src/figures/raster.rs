//! Figures as PNG: painted by resvg, with the font that is built in, so that every machine paints the same.

use super::Figure;
use crate::error::{Error, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// Pixels of the picture per pixel of the drawing.
const ZOOM: f32 = 2.0;

impl Figure {
    /// The stand-alone figure as a PNG file.
    ///
    /// # Errors
    /// An SVG that resvg does not read.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut options = Options { font_family: "DejaVu Sans".to_owned(), ..Options::default() };
        let fonts = options.fontdb_mut();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.load_font_data(dejavu::sans::bold().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        let failed = |reason: String| Error::Png(self.name.clone(), reason);
        let tree = Tree::from_str(&self.svg, &options).map_err(|error| failed(error.to_string()))?;
        let size = tree.size().to_int_size().scale_by(ZOOM);
        let pixmap = size.and_then(|size| Pixmap::new(size.width(), size.height()));
        let mut pixmap = pixmap.ok_or_else(|| failed("it has no size".to_owned()))?;
        resvg::render(&tree, Transform::from_scale(ZOOM, ZOOM), &mut pixmap.as_mut());
        pixmap.encode_png().map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use crate::figures::all;
    use crate::invented;

    #[test]
    fn a_picture_has_twice_the_pixels_and_text_on_white() {
        let figure = all(&invented::bare(), &[]).unwrap().remove(0);
        let picture = image::load_from_memory(&figure.png().unwrap()).unwrap().to_rgba8();
        assert_eq!(picture.width(), 1280);
        assert_eq!(picture.get_pixel(3, 3).0, [255; 4]);
        // The heading is there: without a font resvg leaves text out.
        assert!((0..80).any(|y| (0..400).any(|x| picture.get_pixel(x, y).0[0] < 80)));
    }
}
