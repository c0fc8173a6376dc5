// Images on the page, with their predictions.

/** One image: its file, the URL of its preview, and its prediction. */
export class Picture {
  constructor(file) {
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.card = null;
    this.prediction = null;
    this.error = null;
    this.ranked = []; // [class, probability], most probable first
  }

  /** Store a prediction, or an object with `error`. */
  take(answer) {
    this.error = answer.error ?? null;
    this.prediction = this.error ? null : answer;
    this.ranked = this.error ? [] : Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  }

  /** The upright image; null if the browser doesn't support its format. */
  async source() {
    const image = new Image();
    image.src = this.url;
    try {
      await image.decode();
    } catch {
      return null;
    }
    return image;
  }

  forget() {
    URL.revokeObjectURL(this.url);
    this.card?.remove();
    this.card = null;
  }
}
