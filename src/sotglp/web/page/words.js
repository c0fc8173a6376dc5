// Numbers and scores as text.

const HUNDREDTHS = 100;

export function percent(share) {
  const value = share * HUNDREDTHS;
  if (value > 0 && value < 1) return "< 1\u00a0%";
  if (value < HUNDREDTHS && value > HUNDREDTHS - 1) return "> 99\u00a0%";
  return `${Math.round(value)}\u00a0%`;
}

/** Three significant digits: scores of different methods have different ranges. */
export function figure(value) {
  return Number(value.toPrecision(3)).toString().replace("-", "\u2212");
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function megabytes(bytes) {
  return `${Number((bytes / 1e6).toPrecision(3))} MB`;
}

/** A sentence on the in-distribution score of an image. */
export function decision(score, method, threshold) {
  if (threshold === null) return `In-distribution score (${method}) ${figure(score)}; no threshold.`;
  const verdict = score < threshold ? "Looks unlike the known classes" : "Looks like a known class";
  return `${verdict} (${method} ${figure(score)}, threshold ${figure(threshold)}).`;
}
