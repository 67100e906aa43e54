// The photo tab: sends a picture to the demo's own server and shows the readings.
import {downloadCanvas, downloadTable, readingRow, timedName} from "./download.js";
import {EMOJI, describeReadings, drawReadings, fitCanvas} from "./drawing.js";
import {mount} from "./mount.js";

const MAX_HEIGHT = 0.62;  // of the window, so that the readings are visible too
const NO_FACE = "No face was found. The detector finds upright faces seen from the front.";
const NO_ANSWER = "The server does not answer. Is demo/app.py still running?";

mount("photo", root => {
  const part = name => root.querySelector(`[data-part=${name}]`);
  const chosen = group => root.querySelector(`[name=photo-${group}]:checked`).value;
  const colors = JSON.parse(root.dataset.colors), emotions = Object.keys(colors), canvas = part("picture");
  const state = {picture: null, name: "", answer: null, image: null, number: 0};

  function showMessage(text) {
    part("message").textContent = text;
    part("message").hidden = !text;
  }

  async function read(picture, name) {
    const number = ++state.number;  // a later picture wins
    Object.assign(state, {picture, name});
    showMessage("");
    part("numbers").textContent = "Reading…";
    root.dataset.phase = "reading";
    const answer = await post(picture);
    if (number !== state.number) return;
    state.answer = answer.error ? null : answer;
    if (state.answer) await showAnswer(answer);
    else clear();
    showMessage(answer.error || (answer.readings.length ? "" : NO_FACE));
    root.dataset.faces = answer.error ? "" : answer.readings.length;
    root.dataset.phase = answer.error ? "error" : "done";
  }

  async function post(picture) {
    const address = new URL("../photo", import.meta.url);
    address.search = new URLSearchParams({faces: chosen("faces"), detector: chosen("detector")});
    try {
      const response = await fetch(address, {method: "POST", body: picture, headers: {"Content-Type": "application/octet-stream"}});
      return await response.json();
    } catch {
      return {error: NO_ANSWER};
    }
  }

  function clear() {
    canvas.hidden = true;
    part("empty").hidden = false;
    part("numbers").textContent = "";
    part("faces").replaceChildren();
    part("snapshot").disabled = part("download").disabled = true;
  }

  async function showAnswer(answer) {
    state.image = new Image();
    state.image.src = answer.picture;  // as decoded by the server: upright, without transparency
    await state.image.decode();
    canvas.hidden = false;
    part("empty").hidden = true;
    drawPicture();
    part("faces").replaceChildren(...answer.readings.map((reading, index) => faceCard(reading, index + 1)));
    part("numbers").textContent = canvas.ariaLabel = describeReadings(answer.readings);
    part("snapshot").disabled = false;
    part("download").disabled = !answer.readings.length;
  }

  function drawPicture() {
    if (!state.answer || canvas.hidden || !canvas.parentElement.clientWidth) return;
    const {answer, image} = state;
    const scale = Math.min(canvas.parentElement.clientWidth / answer.width, MAX_HEIGHT * innerHeight / answer.height);
    const width = answer.width * scale, height = answer.height * scale;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = fitCanvas(canvas, width, height);
    context.drawImage(image, 0, 0, width, height);
    drawReadings(context, answer.readings, colors, {scale, mirror: false, width, height});
  }

  function faceCard(reading, number) {
    const card = create("article", "face"), bars = create("div", "bars");
    const emotion = `${reading.unsure ? "unsure, " : ""}${reading.emotion}`;
    const title = `${number}: ${emotion} ${Math.round(100 * reading.confidence)} % ${EMOJI[reading.emotion]}`;
    card.append(figure(reading.face, "model input"));
    if (reading.heat) card.append(figure(reading.heat, `evidence for ${reading.emotion}`));
    bars.append(create("strong", "", title));
    emotions.forEach((name, index) => bars.append(bar(name, reading.probabilities[index])));
    card.append(bars);
    return card;
  }

  function figure(source, text) {
    const element = create("figure"), image = new Image();
    image.src = source;
    image.alt = text;
    image.title = text;
    element.append(image);
    return element;
  }

  function bar(name, probability) {
    const row = create("div", "bar"), filled = create("i");
    filled.style.width = `${(60 * probability).toFixed(1)}%`;
    filled.style.background = colors[name];
    row.append(create("span", "", name), filled, create("b", "", `${(100 * probability).toFixed(0)} %`));
    return row;
  }

  function create(tag, className = "", text = "") {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  }

  function downloadReadings() {
    const place = {source: state.name, frame: "", time_s: ""};
    downloadTable(state.answer.readings.map(reading => readingRow(reading, emotions, place)), timedName("photo"));
  }

  part("choose").onclick = () => part("file").click();
  part("file").onchange = event => {
    const [file] = event.target.files;
    if (file) read(file, file.name);
    event.target.value = "";  // the same file may be chosen again
  };
  part("snapshot").onclick = () => downloadCanvas(canvas, timedName("photo"));
  part("download").onclick = downloadReadings;
  root.querySelectorAll("[type=radio]").forEach(radio => {
    radio.onchange = () => state.picture && read(state.picture, state.name);
  });
  root.ondragover = event => event.preventDefault();
  root.ondrop = event => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) read(file, file.name);
  };
  addEventListener("paste", event => {
    const item = [...(event.clipboardData?.items || [])].find(one => one.type.startsWith("image/"));
    if (item && root.offsetParent) read(item.getAsFile(), "pasted picture");  // only while the tab is open
  });
  addEventListener("resize", drawPicture);
  root.querySelectorAll("[data-example]").forEach(button => {
    button.onclick = async () => {
      const response = await fetch(button.querySelector("img").src);
      await read(await response.blob(), `drawing ${button.dataset.example}`);
    };
  });
});
