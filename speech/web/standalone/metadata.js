// What an exported file says of itself: the JSON text under the key "speech" of an ONNX file, which is
// a protobuf message. Only the fields on the way there are looked at.
const METADATA = 14; // field number in onnx.proto, of a model
const [KEY, VALUE] = [1, 2]; // of an entry

// The metadata of the bytes of a file; an error where it has none, or they are of another version.
export function readMetadata(bytes, format) {
  const remedy = "make the file again with: speech export MODEL";
  let metadata;
  try {
    for (const [number, entry] of fields(bytes)) {
      if (number !== METADATA) continue;
      const pair = new Map(fields(entry));
      if (text(pair.get(KEY)) === "speech") metadata = JSON.parse(text(pair.get(VALUE)));
    }
  } catch (error) {
    throw new Error(`expected a model, got another or a damaged file (${error.message}); ${remedy}`);
  }
  if (!metadata) throw new Error(`expected a model of speech export, got another one; ${remedy}`);
  if (metadata.format !== format) {
    throw new Error(
      `expected a model's file of version ${format}, got version ${metadata.format}; ${remedy} --to web`,
    );
  }
  return metadata;
}

function text(bytes) {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

// [number, content] of each field of a message; of those that are no bytes the content is empty
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      if (at >= bytes.length || factor > 2 ** 63) throw new Error("it ends early");
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, kind] = [Math.floor(tag / 8), tag % 8];
    let size = 0;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) size = varint();
    else throw new Error("no such kind of field");
    if (at + size > bytes.length) throw new Error("it ends early");
    yield [number, bytes.subarray(at, at + size)];
    at += size;
  }
}
