// The photo tab: sends a picture to the demo's own server and shows the readings.
import {EMOJI, drawReadings, fitCanvas} from "./drawing.js";
import {mount} from "./mount.js";

const MAX_WIDTH_PX = 900;
const NO_FACE = "No face was found. The detector finds upright faces seen from the front.";
const NO_ANSWER = "The server does not answer. Is demo/app.py still running?";

mount("photo", root => {
  const part = name => root.querySelector(`[data-part=${name}]`);
  const colors = JSON.parse(root.dataset.colors);

  function showMessage(text) {
    part("message").textContent = text;
    part("message").hidden = !text;
  }

  async function read(picture) {
    showMessage("Reading…");
    root.dataset.phase = "reading";
    const answer = await post(picture);
    part("result").hidden = Boolean(answer.error);
    showMessage(answer.error || (answer.readings.length ? "" : NO_FACE));
    if (!answer.error) await showAnswer(answer);
    root.dataset.faces = answer.error ? "" : answer.readings.length;
    root.dataset.phase = answer.error ? "error" : "done";
  }

  async function post(picture) {
    try {
      const response = await fetch("/photo", {method: "POST", body: picture, headers: {"Content-Type": "application/octet-stream"}});
      return await response.json();
    } catch {
      return {error: NO_ANSWER};
    }
  }

  async function showAnswer(answer) {
    const picture = new Image(), canvas = part("picture");
    picture.src = answer.picture;  // as decoded by the server: upright, without transparency
    await picture.decode();
    const width = Math.min(canvas.parentElement.clientWidth || 640, MAX_WIDTH_PX);
    const scale = width / answer.width, height = answer.height * scale;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = fitCanvas(canvas, width, height);
    context.drawImage(picture, 0, 0, width, height);
    drawReadings(context, answer.readings, colors, {scale, mirror: false, width, height});
    part("faces").replaceChildren(...answer.readings.map((reading, index) => faceCard(reading, index + 1)));
  }

  function faceCard(reading, number) {
    const card = create("div", "face"), bars = create("div");
    const emotion = `${reading.unsure ? "unsure, " : ""}${reading.emotion}`;
    const title = `${EMOJI[reading.emotion]} ${number}: ${emotion} ${Math.round(100 * reading.confidence)} %`;
    card.append(create("strong", "", title));
    if (reading.heat) {
      const pair = create("div", "pair");
      pair.append(figure(reading.face, "model input"), figure(reading.heat, `evidence for ${reading.emotion}`));
      card.append(pair);
    }
    Object.keys(colors).forEach((name, index) => bars.append(bar(name, reading.probabilities[index])));
    card.append(bars);
    return card;
  }

  function figure(source, text) {
    const element = create("figure"), image = new Image();
    image.src = source;
    image.alt = text;
    element.append(image, create("figcaption", "", text));
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

  part("choose").onclick = () => part("file").click();
  part("file").onchange = event => event.target.files[0] && read(event.target.files[0]);
  root.ondragover = event => event.preventDefault();
  root.ondrop = event => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
  };
  addEventListener("paste", event => {
    const item = [...(event.clipboardData?.items || [])].find(one => one.type.startsWith("image/"));
    if (item && root.offsetParent) read(item.getAsFile());  // only while the tab is open
  });
  root.querySelectorAll("[data-example]").forEach(button => {
    button.onclick = async () => read(await (await fetch(button.querySelector("img").src)).blob());
  });
});
