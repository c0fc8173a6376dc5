// How numbers and verdicts are said.

const HUNDREDTHS = 100;

export function percent(share) {
  const value = share * HUNDREDTHS;
  if (value > 0 && value < 1) return "< 1\u00a0%";
  if (value < HUNDREDTHS && value > HUNDREDTHS - 1) return "> 99\u00a0%";
  return `${Math.round(value)}\u00a0%`;
}

/** Three digits that tell, so that scores of any method can be compared. */
export function figure(value) {
  return Number(value.toPrecision(3)).toString().replace("-", "\u2212");
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function megabytes(bytes) {
  return `${Number((bytes / 1e6).toPrecision(3))} MB`;
}

/** What the OOD score says of a picture, in a sentence. */
export function likeness(score, method, threshold) {
  const said = `Likeness to the classes (${method}): ${figure(score)}`;
  if (threshold === null) return `${said}. There is no threshold.`;
  return score < threshold
    ? `${said}, below the threshold ${figure(threshold)}, so none of them.`
    : `${said}, not below the threshold ${figure(threshold)}.`;
}
