// Draws readings on a canvas: a box and a label for each face, and bars with its probabilities where there is room.
export const EMOJI = {angry: "😠", disgust: "🤢", fear: "😨", happy: "😊", sad: "😢", surprise: "😮", neutral: "😐"};

// One sentence for screen readers, such as "2 faces: 1 happy, 2 unsure (sad?)."
export function describeReadings(readings) {
  const faces = `${readings.length} ${readings.length === 1 ? "face" : "faces"}`;
  if (!readings.length) return "No face.";
  const people = readings.map((reading, index) => {
    const name = reading.unsure ? `unsure (${reading.emotion}?)` : reading.emotion;
    return readings.length === 1 ? name : `${reading.track ?? index + 1} ${name}`;
  });
  return `${faces}: ${people.join(", ")}.`;
}

// `colors` maps emotions to colors, in the order of the probabilities; `mirror` flips the positions horizontally.
export function drawReadings(context, readings, colors, {scale, mirror, width, height}) {
  const unit = Math.max(11, Math.min(18, width / 45));
  context.textBaseline = "middle";
  const faces = readings.map((reading, index) => {
    const [left, top, boxWidth, boxHeight] = reading.box.map(side => side * scale);
    const number = readings.length > 1 || reading.track !== null ? reading.track ?? index + 1 : null;
    return {reading, number, x: mirror ? width - left - boxWidth : left, y: top, width: boxWidth, height: boxHeight};
  });
  for (const face of faces) drawBox(context, face, unit, colors);
  const labels = placeLabels(context, faces, unit, width);
  faces.forEach((face, index) => drawLabel(context, face, labels[index], unit, colors));
  const occupied = [...faces, ...labels];  // bars cover neither faces nor labels nor other bars
  for (const face of faces) drawBars(context, face, unit, colors, {width, height, occupied});
}

// Fits a canvas to the given size in CSS pixels, clears it and returns its context.
export function fitCanvas(canvas, width, height) {
  const density = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * density)) canvas.width = Math.round(width * density);
  if (canvas.height !== Math.round(height * density)) canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function drawBox(context, {reading, x, y, width, height}, unit, colors) {
  context.lineWidth = Math.max(2, unit / 6);
  context.strokeStyle = colors[reading.emotion];
  context.setLineDash(reading.unsure ? [unit / 2, unit / 2] : []);
  context.beginPath();
  context.roundRect(x, y, width, height, unit / 2);
  context.stroke();
  context.setLineDash([]);
}

// The longest texts with which no label covers another one: in a crowd, only the numbers.
function placeLabels(context, faces, unit, canvasWidth) {
  context.font = `600 ${unit}px system-ui, sans-serif`;
  const levels = [0, 1, 2].map(level => {
    const placed = [];
    for (const face of faces) {
      const plates = labelPlates(context, face, labelTexts(face)[level], unit, canvasWidth);
      placed.push(plates.find(plate => !placed.some(other => overlap(plate, other))) || {...plates[0], covers: true});
    }
    return placed;
  });
  return levels.find(placed => !placed.some(plate => plate.covers)) || levels.at(-1);
}

function labelTexts({reading: {emotion, unsure, confidence}, number}) {
  const prefix = number === null ? "" : `${number} `, percent = `${Math.round(100 * confidence)} %`;
  return [`${prefix}${unsure ? `unsure (${emotion}?)` : emotion} ${percent}`, `${prefix}${emotion}${unsure ? "?" : ""}`, prefix.trim()];
}

function labelPlates(context, face, text, unit, canvasWidth) {
  const width = context.measureText(text).width + unit * 2.8, height = unit * 1.8;
  const above = face.y - height - 4, y = above < 0 ? face.y + 4 : above;
  const starts = [face.x, face.x + face.width - width];  // at the left or the right end of the box
  return starts.map(start => ({text, width, height, y, x: Math.max(2, Math.min(start, canvasWidth - width - 2))}));
}

function drawLabel(context, face, plate, unit, colors) {
  const {emotion} = face.reading;
  drawPanel(context, plate.x, plate.y, plate.width, plate.height, plate.height / 2, 0.78);
  context.fillStyle = colors[emotion];
  context.fillRect(plate.x + unit, plate.y + plate.height - 3, plate.width - 2 * unit, 2);
  context.fillStyle = "#fff";
  context.font = `600 ${unit}px system-ui, sans-serif`;
  context.fillText(plate.text, plate.x + unit * 2.3, plate.y + plate.height / 2 - 1);
  context.font = `${unit * 1.25}px "Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", sans-serif`;
  context.fillText(EMOJI[emotion], plate.x + unit * 0.4, plate.y + plate.height / 2);
}

function drawBars(context, face, unit, colors, {width, height, occupied}) {
  const names = Object.keys(colors), row = Math.min(unit * 1.05, Math.max(face.height / names.length, 10));
  const fontSize = Math.min(unit * 0.75, row * 0.8), textWidth = fontSize * 4.6;
  const barWidth = Math.min(90, Math.max(30, face.width * 0.35));
  const size = {width: textWidth + barWidth + 10, height: row * names.length + 6};
  const panel = [
    {x: face.x + face.width + 6, y: face.y, ...size},
    {x: face.x - size.width - 6, y: face.y, ...size},
    {x: face.x, y: face.y + face.height + 6, ...size},
  ].find(place => isInside(place, width, height) && !occupied.some(other => overlap(place, other)));
  if (!panel) return;
  occupied.push(panel);
  drawPanel(context, panel.x, panel.y, panel.width, panel.height, 6, 0.62);
  context.font = `${fontSize}px system-ui, sans-serif`;
  names.forEach((name, index) => {
    const y = panel.y + 3 + row * (index + 0.5), left = panel.x + 5 + textWidth;
    context.fillStyle = name === face.reading.emotion ? "#fff" : "rgba(255, 255, 255, 0.72)";
    context.fillText(name, panel.x + 5, y);
    context.fillStyle = "rgba(255, 255, 255, 0.16)";
    context.fillRect(left, y - row * 0.28, barWidth, row * 0.56);
    context.fillStyle = colors[name];
    context.fillRect(left, y - row * 0.28, barWidth * face.reading.probabilities[index], row * 0.56);
  });
}

function drawPanel(context, x, y, width, height, radius, opacity) {
  context.fillStyle = `rgba(15, 17, 21, ${opacity})`;
  context.beginPath();
  context.roundRect(x, y, width, height, radius);
  context.fill();
}

function isInside(place, width, height) {
  return place.x >= 0 && place.x + place.width <= width && place.y >= 0 && place.y + place.height <= height;
}

function overlap(one, other) {
  return one.x < other.x + other.width && other.x < one.x + one.width
    && one.y < other.y + other.height && other.y < one.y + one.height;
}
