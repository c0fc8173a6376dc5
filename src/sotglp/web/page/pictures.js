// The pictures on the page, and what is known of each.

/** One picture: its file, an address to show it by, and its prediction. */
export class Picture {
  constructor(file) {
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.card = null;
    this.prediction = null;
    this.error = null;
    this.ranked = []; // [class, probability], most probable first
  }

  /** Take in what the server said: a prediction, or `error`. */
  take(answer) {
    this.error = answer.error ?? null;
    this.prediction = this.error ? null : answer;
    this.ranked = this.error ? [] : Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  }

  /** The upright picture, to be drawn; null where the browser can't show such a file. */
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
