// Draws readings on a canvas: a box and a label for each face, and bars with its probabilities where there is room.
export const EMOJI = {angry: "😠", disgust: "🤢", fear: "😨", happy: "😊", sad: "😢", surprise: "😮", neutral: "😐"};

// `colors` maps emotions to colors, in the order of the probabilities; `mirror` flips the positions horizontally.
export function drawReadings(context, readings, colors, {scale, mirror, width, height}) {
  const unit = Math.max(11, Math.min(18, width / 45));
  context.textBaseline = "middle";
  const faces = readings.map(reading => {
    const [left, top, boxWidth, boxHeight] = reading.box.map(side => side * scale);
    return {reading, x: mirror ? width - left - boxWidth : left, y: top, width: boxWidth, height: boxHeight};
  });
  for (const face of faces) drawBox(context, face, unit, colors);
  const occupied = [...faces];  // bars cover neither faces nor labels nor other bars
  for (const face of faces) occupied.push(drawLabel(context, face, unit, colors, width));
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

function drawLabel(context, {reading, x, y: top}, unit, colors, canvasWidth) {
  const name = reading.unsure ? `unsure (${reading.emotion}?)` : reading.emotion;
  const person = reading.track === null ? "" : ` · ${reading.track}`;
  const text = `${name} ${Math.round(100 * reading.confidence)} %${person}`;
  context.font = `600 ${unit}px system-ui, sans-serif`;
  const height = unit * 1.8, emojiWidth = unit * 1.6;
  const width = context.measureText(text).width + emojiWidth + unit * 1.2;
  const left = Math.max(2, Math.min(x, canvasWidth - width - 2));
  const y = top - height - 4 < 0 ? top + 4 : top - height - 4;
  drawPanel(context, left, y, width, height, height / 2, 0.78);
  context.fillStyle = colors[reading.emotion];
  context.fillRect(left + unit, y + height - 3, width - 2 * unit, 2);
  context.fillStyle = "#fff";
  context.fillText(text, left + emojiWidth + unit * 0.7, y + height / 2 - 1);
  context.font = `${unit * 1.25}px "Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", sans-serif`;
  context.fillText(EMOJI[reading.emotion], left + unit * 0.4, y + height / 2);
  return {x: left, y, width, height};
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
