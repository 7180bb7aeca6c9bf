// Colours and bold of a terminal, carried over lines. Everything else that controls a terminal is left out.

// eslint-disable-next-line no-control-regex -- that is what they are
const CONTROLS = /\x1b(?:\[([0-9;:]*)([ -/]*[@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])/g;
// Characters that are not seen or change the direction of text, by which a line can look like another one.
// As in shown.py.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]|(?<![^\u0000-\u024f])[\u200c\u200d]|[\u200c\u200d](?![^\u0000-\u024f])/gu;
const STEPS = [0, 95, 135, 175, 215, 255];

const PLAIN = { colour: null, background: null, bold: false, dim: false, italic: false, underline: false, inverse: false };

/** Reads lines one after the other; `state` is how the next one begins. */
export class LineParser {
  constructor(state) {
    this.state = { ...PLAIN, ...state };
  }

  /** Return the parts of a line: its text, and its classes and colours, if it has any. */
  parse(line) {
    let text = line;
    const returned = text.lastIndexOf("\r");
    if (returned >= 0) text = this.lastState(text);
    const parts = [];
    let at = 0;
    CONTROLS.lastIndex = 0;
    if (text.includes("\x1b")) {
      for (let match = CONTROLS.exec(text); match; match = CONTROLS.exec(text)) {
        this.add(parts, text.slice(at, match.index));
        if (match[2] === "m") this.change(match[1]);
        at = CONTROLS.lastIndex;
      }
    }
    this.add(parts, text.slice(at));
    return parts;
  }

  /** Return what a terminal shows of a line that was written over; the colours of all of it count. */
  lastState(text) {
    const states = text.split("\r").filter((state) => state !== "");
    const shown = states.pop() ?? "";
    for (const state of states) {
      CONTROLS.lastIndex = 0;
      for (let match = CONTROLS.exec(state); match; match = CONTROLS.exec(state)) if (match[2] === "m") this.change(match[1]);
    }
    return shown;
  }

  add(parts, raw) {
    if (!raw) return;
    const text = raw.replace(HIDDEN, (character) => {
      const code = character.charCodeAt(0);
      return code < 0x20 ? String.fromCharCode(0x2400 + code) : "\ufffd";
    });
    const { bold, dim, italic, underline, inverse } = this.state;
    let { colour, background } = this.state;
    if (inverse) [colour, background] = [background ?? "bg", colour ?? "fg"];
    const classes = [];
    let ownColour = "";
    let ownBackground = "";
    if (typeof colour === "number") classes.push(`f${colour}`);
    else if (colour === "bg") classes.push("fb");
    else if (colour) ownColour = colour;
    if (typeof background === "number") classes.push(`b${background}`);
    else if (background === "fg") classes.push("bf");
    else if (background) ownBackground = background;
    if (bold) classes.push("bold");
    if (dim) classes.push("dim");
    if (italic) classes.push("italic");
    if (underline) classes.push("under");
    parts.push({ text, classes: classes.join(" "), colour: ownColour, background: ownBackground });
  }

  /** Apply the numbers of `ESC [ … m`. */
  change(numbers) {
    const codes = numbers === "" ? [0] : numbers.split(/[;:]/).map(Number);
    const state = this.state;
    for (let at = 0; at < codes.length; at += 1) {
      const code = codes[at];
      if (code === 0) Object.assign(state, PLAIN);
      else if (code === 1) state.bold = true;
      else if (code === 2) state.dim = true;
      else if (code === 3) state.italic = true;
      else if (code === 4) state.underline = true;
      else if (code === 7) state.inverse = true;
      else if (code === 22) state.bold = state.dim = false;
      else if (code === 23) state.italic = false;
      else if (code === 24) state.underline = false;
      else if (code === 27) state.inverse = false;
      else if (code >= 30 && code <= 37) state.colour = code - 30;
      else if (code >= 90 && code <= 97) state.colour = code - 82;
      else if (code === 39) state.colour = null;
      else if (code >= 40 && code <= 47) state.background = code - 40;
      else if (code >= 100 && code <= 107) state.background = code - 92;
      else if (code === 49) state.background = null;
      else if (code === 38 || code === 48) {
        const name = code === 38 ? "colour" : "background";
        if (codes[at + 1] === 5) {
          state[name] = indexed(codes[at + 2]);
          at += 2;
        } else if (codes[at + 1] === 2) {
          state[name] = rgb(codes[at + 2], codes[at + 3], codes[at + 4]);
          at += 4;
        }
      }
    }
  }
}

/** Return a colour of the 256: a number below 16, which the style sheet knows, or a value. */
function indexed(number) {
  if (!(number >= 0 && number <= 255)) return null;
  if (number < 16) return number;
  if (number > 231) return rgb(...Array(3).fill(8 + (number - 232) * 10));
  const index = number - 16;
  return rgb(STEPS[Math.floor(index / 36)], STEPS[Math.floor(index / 6) % 6], STEPS[index % 6]);
}

function rgb(...values) {
  return values.every((value) => value >= 0 && value <= 255) ? `rgb(${values.join(" ")})` : null;
}
