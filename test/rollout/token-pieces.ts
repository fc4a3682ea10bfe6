import fc from 'fast-check'

const encoder = new TextEncoder()

/** The text that each token brings when a streaming UTF-8 decoder reads the bytes cut at `cuts`. */
export function piecesAt(text: string, cuts: readonly number[]): string[] {
  const bytes = encoder.encode(text)
  const borders = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  const pieces: string[] = []
  let from = 0
  for (const to of [...borders, bytes.length]) {
    pieces.push(decoder.decode(bytes.subarray(from, to), { stream: true }))
    from = to
  }
  return pieces
}

/** Well-formed text that is rich in tags, pieces of tags and characters of several bytes. */
export const taggedText = fc
  .array(
    fc.oneof(
      { weight: 5, arbitrary: fc.constantFrom('<think>', '</think>', '<search>', '</search>') },
      { weight: 5, arbitrary: fc.constantFrom('<information>', '</information>', '<answer>', '</answer>') },
      {
        weight: 2,
        arbitrary: fc.constantFrom('<search>q</search>\n<information>', '<search> é </search><information>'),
      },
      {
        weight: 4,
        arbitrary: fc.constantFrom(' ', '\n', '<', '</', '<inf', 'search>', 'x', 'é', '文', '🏈', '\u0085'),
      },
      { weight: 2, arbitrary: fc.string({ unit: 'grapheme', maxLength: 5 }) },
    ),
    { maxLength: 16 },
  )
  .map((parts) => parts.join(''))

/** Where tokens end, in bytes modulo the length. */
export const cutPoints = fc.array(fc.nat(1000), { maxLength: 40 })
