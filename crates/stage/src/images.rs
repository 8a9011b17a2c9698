//! Which images a stage reads: `--data`, `--split`, `--images`, `--seed`, `--batch-size`.

use crate::Usage;
use crate::provenance::data_input;
use anyhow::{Context, bail, ensure};
use clap::Args;
use ndarray::Array4;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use zipit::images::ImageBatches;
use zipit::{Model, Preprocess, Task};
use zipit_artifact::header::InputRef;
use zipit_data::{Dataset, Split, sample};

/// The flags that choose images.
#[derive(Debug, Clone, Args)]
pub struct ImageArgs {
    /// A data set: class folders of images, IDX, CIFAR's or STL-10's files, or an HDF5 file; may be given several times
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// train, val (every tenth training image, which `train` leaves out) or test [default: see the command]
    #[arg(long)]
    pub split: Option<Split>,
    /// Use a random subset of this many images [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub images: Option<u64>,
    /// Only images of these classes: names, indices or ranges such as 0-4 [default: see the command]
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Seed of the random subset and order
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Images per batch [default: what is fastest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub batch_size: Option<u64>,
}

/// Where one image is: data set, position in it.
type Place = (usize, usize);

/// The chosen images.
#[derive(Debug)]
pub struct ImageSet {
    datasets: Vec<Dataset>,
    places: Vec<Place>,
    /// Which split they are of.
    pub split: Split,
    /// So many of the last are from the far end of the random order.
    pub n_last: usize,
    /// How many there were to choose from.
    pub n_all: usize,
}

impl ImageArgs {
    /// Whether any flag that chooses images was given.
    #[must_use]
    pub fn given(&self) -> bool {
        !self.data.is_empty() || self.split.is_some() || self.images.is_some() || !self.classes.is_empty()
    }

    /// Opens the data sets.
    ///
    /// # Errors
    /// When none is given or one of them cannot be read.
    pub fn open(&self, default: Split) -> anyhow::Result<Vec<Dataset>> {
        if self.data.is_empty() {
            return Err(Usage("which images? give --data".to_owned()).into());
        }
        let split = self.split.unwrap_or(default);
        self.data.iter().map(|path| open_dataset(path, split)).collect()
    }

    /// Opens the data sets and chooses the images of the classes that `tasks` name, in random order by seed.
    /// A data set that has none of these classes, or any if there are no tasks, is used whole: unlabelled images will do
    /// for statistics. `--classes` stands in for the tasks'.
    ///
    /// # Errors
    /// When a data set cannot be read, lacks a class of a task that it otherwise serves, or no image is left.
    pub fn choose(&self, tasks: &[&Task], default: Split) -> anyhow::Result<ImageSet> {
        self.choose_apart(tasks, default, usize::MAX)
    }

    /// The same, with one in `every` of the images from the far end of the random order, which come last: no stage with the
    /// same seed has seen them, unless it took nearly all.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn choose_apart(&self, tasks: &[&Task], default: Split, every: usize) -> anyhow::Result<ImageSet> {
        let datasets = self.open(default)?;
        let mut all: Vec<Place> = Vec::new();
        for (d, dataset) in datasets.iter().enumerate() {
            let mut classes: BTreeSet<u32> = BTreeSet::new();
            if self.classes.is_empty() {
                for task in tasks {
                    classes.extend(served_classes(dataset, task)?.into_iter().flatten());
                }
            } else {
                let asked = dataset.class_indices(&self.classes);
                classes.extend(asked.with_context(|| format!("{}: --classes", self.data[d].display()))?);
            }
            if classes.is_empty() {
                if !tasks.is_empty() {
                    tracing::info!("{} has none of the tasks' classes: all of its images are used", dataset.name());
                }
                all.extend((0..dataset.len()).map(|i| (d, i)));
            } else {
                let classes: Vec<u32> = classes.into_iter().collect();
                all.extend(dataset.images_of(&classes).into_iter().map(|i| (d, i)));
            }
        }
        ensure!(!all.is_empty(), "no image is left to use: the split holds none of the tasks' classes");
        let n = self.images.map_or(all.len(), |n| n as usize);
        if n > all.len() {
            tracing::warn!("--images asks for {n}, there are {}: all of them are used", all.len());
        }
        let n = n.min(all.len());
        let n_last = n / every;
        let order = sample(all.len(), if n_last == 0 { n } else { all.len() }, self.seed);
        let places = order[..n - n_last].iter().chain(&order[order.len() - n_last..]).map(|&i| all[i]).collect();
        Ok(ImageSet { datasets, places, split: self.split.unwrap_or(default), n_last, n_all: all.len() })
    }
}

/// Opens a data set and says what is odd about it.
///
/// # Errors
/// When it cannot be read.
pub fn open_dataset(path: &Path, split: Split) -> anyhow::Result<Dataset> {
    let dataset = Dataset::open(path, split)?;
    dataset.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(dataset)
}

/// The data set's class numbers for a task's classes, in logit order; `None` if it has none of them.
///
/// # Errors
/// When it has some of them only.
pub fn served_classes(dataset: &Dataset, task: &Task) -> anyhow::Result<Option<Vec<u32>>> {
    let find = |name: &String| dataset.classes().iter().position(|c| c == name);
    let missing: Vec<_> = task.classes.iter().filter(|name| find(name).is_none()).map(String::as_str).collect();
    if missing.len() == task.classes.len() {
        return Ok(None);
    }
    if !missing.is_empty() {
        bail!(
            "{} lacks {} of task `{}`; it has: {}",
            dataset.name(),
            missing.join(", "),
            task.name,
            dataset.classes().join(", ")
        );
    }
    Ok(Some(task.classes.iter().filter_map(find).map(|c| c as u32).collect()))
}

/// One image of so many is a copy of another in data sets that are as they should be.
const USUAL: usize = 100;

/// Says how many of the images that something is fitted to are copies of others, and warns of many.
pub fn tell_copies(n_images: usize, n_different: usize) {
    let n_copies = n_images - n_different;
    let told = format!(
        "{n_copies} of {n_images} images are copies of others, or nearly; {n_different} differ: copies are fitted or held \
         out together"
    );
    if n_copies * USUAL > n_images {
        tracing::warn!("{told}");
    } else if n_copies > 0 {
        tracing::debug!("{told}");
    }
}

/// All tasks of all models whose classes are images'; those of a dense output are its positions'.
#[must_use]
pub fn tasks_of<'a>(models: &[&'a Model]) -> Vec<&'a Task> {
    let tasks = models.iter().flat_map(|model| model.tasks.iter().zip(model.classifies()));
    tasks.filter(|(_, classifies)| *classifies).map(|(task, _)| task).collect()
}

impl ImageSet {
    /// The same images in the order of the data sets.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        self.places.sort_unstable();
        self
    }

    /// The data sets they are from.
    #[must_use]
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// Number of images of data set `index`.
    #[must_use]
    pub fn n_images_of(&self, index: usize) -> usize {
        self.places.iter().filter(|(d, _)| *d == index).count()
    }

    /// Each image's class name.
    pub fn class_names(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|&(d, i)| {
            let dataset = &self.datasets[d];
            dataset.classes()[dataset.labels()[i] as usize].as_str()
        })
    }

    /// What each image is called: its file in a tree of class folders, else its number in the split, from 0; of several
    /// data sets, after the data set's name.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.places.iter().map(|&(d, i)| {
            let dataset = &self.datasets[d];
            let name = dataset.file(i).map_or_else(|| i.to_string(), |file| file.display().to_string());
            if self.datasets.len() > 1 { format!("{}/{name}", dataset.name()) } else { name }
        })
    }

    /// For every image, the task whose data it is from: the one with the image's class; where tasks share classes, the
    /// data sets' own order, if there are as many data sets as tasks.
    ///
    /// # Errors
    /// When neither tells.
    pub fn tasks_of_images(&self, tasks: &[Task]) -> anyhow::Result<Vec<usize>> {
        let having = |class: &str| -> Vec<usize> {
            tasks.iter().enumerate().filter(|(_, t)| t.classes.iter().any(|c| c == class)).map(|(i, _)| i).collect()
        };
        let by_data_set = self.datasets.len() == tasks.len();
        let mut known: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let places = self.places.iter().zip(self.class_names());
        places
            .map(|(&(d, _), class)| {
                if let Some(&task) = known.get(&(d, class)) {
                    return Ok(task);
                }
                let task = match having(class)[..] {
                    [only] => only,
                    _ if by_data_set => d,
                    ref several => bail!(
                        "class `{class}` is in {} of the tasks, so it does not tell from which task's data an image is: \
                         give one --data per task, in the order of the tasks ({})",
                        several.len(),
                        tasks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                };
                known.insert((d, class), task);
                Ok(task)
            })
            .collect()
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The images at `indices`, in that order, as the network expects them.
    ///
    /// # Errors
    /// An image that cannot be read, by name.
    pub fn images(
        &self,
        indices: &[usize],
        preprocess: &Preprocess,
    ) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        let places: Vec<Place> = indices.iter().map(|&i| self.places[i]).collect();
        self.load(&places, preprocess)
    }

    fn load(&self, places: &[Place], preprocess: &Preprocess) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        let size = preprocess.size;
        let mut batch = Array4::zeros((places.len(), preprocess.channels(), size[0], size[1]));
        for (d, dataset) in self.datasets.iter().enumerate() {
            let rows: Vec<usize> = (0..places.len()).filter(|&row| places[row].0 == d).collect();
            if rows.is_empty() {
                continue;
            }
            let images: Vec<usize> = rows.iter().map(|&row| places[row].1).collect();
            let loaded = dataset.load(&images, preprocess)?;
            if rows.len() == places.len() {
                return Ok(loaded);
            }
            for (image, row) in loaded.outer_iter().zip(rows) {
                batch.index_axis_mut(ndarray::Axis(0), row).assign(&image);
            }
        }
        Ok(batch)
    }

    /// The data sets as inputs of a provenance.
    #[must_use]
    pub fn inputs(&self) -> Vec<InputRef> {
        self.datasets.iter().map(|d| data_input(d.name().to_owned(), d.digest())).collect()
    }

    /// Cuts the images into batches of `batch_size`, of which shard (i, n), i from 1,
    /// holds the i-th and every n-th after it.
    #[must_use]
    pub fn batches<'a>(
        &'a self,
        preprocess: &'a Preprocess,
        batch_size: usize,
        shard: Option<(usize, usize)>,
    ) -> Batches<'a> {
        let (first, step) = shard.unwrap_or((1, 1));
        let all: Vec<&[Place]> = self.places.chunks(batch_size).collect();
        Batches { set: self, preprocess, chunks: all.into_iter().skip(first - 1).step_by(step).collect() }
    }
}

/// Images in batches.
#[derive(Debug)]
pub struct Batches<'a> {
    set: &'a ImageSet,
    preprocess: &'a Preprocess,
    chunks: Vec<&'a [Place]>,
}

impl Batches<'_> {
    /// The class name of every image of a batch.
    pub fn class_names(&self, index: usize) -> impl Iterator<Item = &str> {
        self.chunks[index].iter().map(|&(d, i)| {
            let dataset = &self.set.datasets[d];
            dataset.classes()[dataset.labels()[i] as usize].as_str()
        })
    }
}

impl ImageBatches for Batches<'_> {
    fn n_batches(&self) -> usize {
        self.chunks.len()
    }

    fn n_images_in(&self, n: usize) -> usize {
        self.chunks[..n].iter().map(|b| b.len()).sum()
    }

    fn batch(&self, index: usize) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        self.set.load(self.chunks[index], self.preprocess)
    }
}

/// Parses `i/n` of `--shard`, i from 1 to n.
///
/// # Errors
/// When it is no such fraction.
pub fn parse_shard(text: &str) -> anyhow::Result<(usize, usize)> {
    let (i, n) = text.split_once('/').context("write a shard as i/n, i from 1 to n")?;
    let (i, n): (usize, usize) = (i.parse()?, n.parse()?);
    ensure!((1..=n).contains(&i), "shard {i}/{n}: i runs from 1 to n");
    Ok((i, n))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::Array4;

    /// The chosen images of 103, by number.
    fn chosen(images: Option<u64>, every: usize) -> Vec<usize> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.h5");
        let pixels = Array4::from_shape_fn((103, 1, 2, 2), |(i, ..)| i as u8);
        let labels: Vec<u32> = (0..103).map(|i| i % 2).collect();
        zipit_artifact::dataset::write(&path, &["a".into(), "b".into()], &[("train", pixels.view(), &labels)]).unwrap();
        let args = ImageArgs {
            data: vec![path],
            split: None,
            images,
            classes: vec!["a".into(), "b".into()],
            seed: 5,
            batch_size: None,
        };
        let set = args.choose_apart(&[], Split::Train, every).unwrap();
        // `val` is every tenth training image.
        assert_eq!((set.n_all, set.n_last), (93, images.map_or(93, |n| n as usize) / every));
        set.places.iter().map(|&(_, image)| image).collect()
    }

    #[test]
    fn the_last_ones_are_from_the_far_end() {
        let all = chosen(None, usize::MAX);
        assert_eq!(all.len(), 93);
        let few = chosen(Some(40), 10);
        assert_eq!(few[..36], all[..36]);
        assert_eq!(few[36..], all[89..]);
        // With all of them the order is as it was; with too few none is apart.
        assert_eq!(chosen(None, 10), all);
        assert_eq!(chosen(Some(9), 10), all[..9]);
    }
}
