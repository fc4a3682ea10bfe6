import test from 'ava'
import fc from 'fast-check'
import {
  byteLevelToBytes,
  bytesToByteLevel,
  joinTokenBytes,
  sentencePieceToBytes,
  TextStream,
} from '../../lib/policy/byte-decoder.ts'

test('every byte has one character of the byte-level alphabet, and comes back from it', (t) => {
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte)
  const text = bytesToByteLevel(all)
  t.is(new Set(text).size, 256)
  t.deepEqual(byteLevelToBytes(text), all)
})

test("the alphabet is GPT-2's", (t) => {
  t.is(bytesToByteLevel(Buffer.from(' \n\t!~¡é')), 'ĠĊĉ!~Â¡Ã©')
  t.is(bytesToByteLevel(Uint8Array.of(0, 0x7f, 0xad)), 'ĀġŃ')
})

test('a token with characters outside the alphabet stands for its own UTF-8', (t) => {
  t.deepEqual(byteLevelToBytes('日Ġ'), new Uint8Array(Buffer.from('日Ġ')))
})

test('sentencepiece tokens are their text with spaces, or one byte', (t) => {
  t.deepEqual(sentencePieceToBytes('▁the▁'), new Uint8Array(Buffer.from(' the ')))
  t.deepEqual(sentencePieceToBytes('<0x0A>'), Uint8Array.of(10))
  t.deepEqual(sentencePieceToBytes('<0x0A>x'), new Uint8Array(Buffer.from('<0x0A>x')))
})

test('the table holds every token between its offsets, nothing for a hole, and nothing beyond the vocabulary', (t) => {
  const { bytes, offsets } = joinTokenBytes(
    [Uint8Array.of(1, 2), undefined, Uint8Array.of(3), Uint8Array.of(9)],
    3,
  )
  t.deepEqual(offsets, Int32Array.of(0, 2, 2, 3))
  t.deepEqual(bytes, Uint8Array.of(1, 2, 3))
  t.deepEqual(joinTokenBytes([Uint8Array.of(1)], 4).offsets, Int32Array.of(0, 1, 1, 1, 1))
})

test('streamed text is the text of all bytes at once, however they are cut', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.string({ unit: 'binary', maxLength: 20 }).map((text) => new Uint8Array(Buffer.from(text))),
    fc
      .array(fc.constantFrom(0xf0, 0x9f, 0x99, 0x82, 0xe6, 0x97, 0xa5, 0x41, 0xef, 0xbb, 0xbf), {
        maxLength: 20,
      })
      .map((list) => Uint8Array.from(list)),
  )
  fc.assert(
    fc.property(bytes, fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 60 }), (all, cuts) => {
      const stream = new TextStream()
      let text = ''
      let at = 0
      for (const length of [...cuts, all.length]) {
        text += stream.push(all.subarray(at, at + length))
        at += length
      }
      t.is(text + stream.end(), new TextDecoder('utf-8', { ignoreBOM: true }).decode(all))
    }),
    { numRuns: 2000 },
  )
})

test('a character comes with its last byte, and never in halves', (t) => {
  const stream = new TextStream()
  const pieces = [...Buffer.from('é🙂x')].map((byte) => stream.push(Uint8Array.of(byte)))
  t.deepEqual(pieces, ['', 'é', '', '', '', '🙂', 'x'])
  t.is(stream.end(), '')
})

test('an unfinished character ends as U+FFFD, and the stream starts afresh', (t) => {
  const stream = new TextStream()
  t.is(stream.push(Uint8Array.of(0xe6, 0x97)), '')
  t.is(stream.end(), '\ufffd')
  t.is(stream.push(Buffer.from('a')), 'a')
})
