// Downloads that are made in the browser: the readings as a table with the columns of `emotion-detection predict`, and
// pictures.
const BOX = ["left", "top", "width", "height"];

// `emotions` are in the order of the probabilities; `place` has source, frame and time_s, empty for a photo.
export function readingRow(reading, emotions, place) {
  const row = {...place, track: reading.track ?? ""};
  BOX.forEach((side, index) => { row[side] = reading.box[index]; });
  Object.assign(row, {emotion: reading.emotion, confidence: reading.confidence, unsure: reading.unsure ? "True" : "False"});
  emotions.forEach((emotion, index) => { row[`p_${emotion}`] = reading.probabilities[index]; });
  return row;
}

export function downloadTable(rows, name) {
  const columns = Object.keys(rows[0]);
  const lines = [columns, ...rows.map(row => columns.map(column => row[column]))];
  const text = lines.map(line => line.map(quoted).join(",")).join("\n") + "\n";
  download(new Blob([text], {type: "text/csv"}), `${name}.csv`);
}

export function downloadCanvas(canvas, name) {
  canvas.toBlob(blob => blob && download(blob, `${name}.png`), "image/png");
}

// A name such as webcam-2026-11-29-14-05-09.
export function timedName(name) {
  const now = new Date(), local = new Date(now - 60_000 * now.getTimezoneOffset());
  return `${name}-${local.toISOString().slice(0, 19).replace(/[T:]/g, "-")}`;
}

function quoted(value) {
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
