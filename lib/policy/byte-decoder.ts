/** The bytes of every token id, one after the other. */
export interface TokenBytes {
  /** the bytes of all tokens, joined */
  bytes: Uint8Array
  /** vocabSize + 1 offsets: token `id` has the bytes from `offsets[id]` to `offsets[id + 1]`; none for an id without a token */
  offsets: Int32Array
}

const byteOfChar = byteLevelAlphabet()
const charOfByte = new Map([...byteOfChar].map(([char, byte]) => [byte, char]))

/**
 * The alphabet in which byte-level BPE vocabularies write bytes: printable Latin-1 stands for itself,
 * the 68 others for the code points from U+0100 on (GPT-2's convention).
 */
function byteLevelAlphabet(): Map<string, number> {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  const alphabet = new Map<string, number>()
  let next = 0x100
  for (let byte = 0; byte < 256; byte++)
    alphabet.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte)
  return alphabet
}

/** A byte-level token's raw bytes; a token with characters outside the alphabet stands for its own UTF-8. */
export function byteLevelToBytes(token: string): Uint8Array {
  const bytes = Uint8Array.from(token, (char) => byteOfChar.get(char) ?? 256)
  return [...token].every((char) => byteOfChar.has(char)) ? bytes : new TextEncoder().encode(token)
}

/** Raw bytes in the byte-level alphabet: the inverse of `byteLevelToBytes`. */
export function bytesToByteLevel(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => charOfByte.get(byte)).join('')
}

/** A sentencepiece-style token's raw bytes: `<0x0A>` is one byte, `▁` a space. */
export function sentencePieceToBytes(token: string, space = '▁'): Uint8Array {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)
  if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16))
  return new TextEncoder().encode(token.replaceAll(space, ' '))
}

/** @param tokens bytes by id; a hole is an id without a token */
export function joinTokenBytes(tokens: readonly (Uint8Array | undefined)[], vocabSize: number): TokenBytes {
  const offsets = new Int32Array(vocabSize + 1)
  for (let id = 0; id < vocabSize; id++) offsets[id + 1] = offsets[id]! + (tokens[id]?.length ?? 0)
  const bytes = new Uint8Array(offsets[vocabSize]!)
  for (let id = 0; id < vocabSize; id++) {
    const token = tokens[id]
    if (token) bytes.set(token, offsets[id]!)
  }
  return { bytes, offsets }
}

/**
 * Turns bytes that arrive piece by piece into text, without ever cutting a character:
 * what `push` and `end` return, joined, is what a TextDecoder makes of all bytes at once.
 */
export class TextStream {
  // ignoreBOM keeps a leading U+FEFF: it is text that the policy wrote
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  /** The characters that these bytes complete; '' while in the middle of one. */
  push(bytes: Uint8Array): string {
    return bytes.length === 0 ? '' : this.#decoder.decode(bytes, { stream: true })
  }

  /** U+FFFD for a character that was left unfinished, else ''. The stream is as new afterwards. */
  end(): string {
    return this.#decoder.decode()
  }
}
