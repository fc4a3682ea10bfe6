import test from 'ava'
import fc from 'fast-check'
import { ChoiceText, type Piece } from '../../lib/serve/choice-text.ts'
import { byteTokenizer } from '../helpers/byte-policy.ts'

const tokenizer = byteTokenizer()
const end = tokenizer.tokenId('<|end|>')!

/** One token of two letters. */
const word = tokenizer.tokenId('>.')!

interface Stops {
  stop?: string[]
  keptStop?: string[]
}

/** Feeds tokens one by one; gives the pieces, the last of them from the end. */
function feed(tokens: readonly number[], { stop = [], keptStop = [] }: Stops = {}): Piece[] {
  const choice = new ChoiceText({ tokenizer, endTokenIds: [end], stop, keptStop })
  return [...tokens.map((token, index) => choice.push(token, -index)), choice.end()]
}

const textOf = (pieces: readonly Piece[]) => pieces.map(({ text }) => text).join('')
const bytes = (text: string) => [...Buffer.from(text)]

test('text that can not be the beginning of a stop string comes at once, the rest when it is certain', (t) => {
  const pieces = feed(bytes('a<b</x</stop>c'), { stop: ['</stop>'] })
  t.deepEqual(
    pieces.map(({ text }) => text),
    ['a', '', '<b', '', '', '</x', '', '', '', '', '', '', '', '', ''],
  )
  t.is(textOf(feed(bytes('a</sto'), { stop: ['</stop>'] })), 'a</sto')
})

test('a stop string goes with all behind it; one that is kept stays, and what the same token holds behind it goes', (t) => {
  const tokens = [...bytes('x</answer'), word]
  t.is(textOf(feed(tokens, { stop: ['</answer>'] })), 'x')
  t.is(textOf(feed(tokens, { keptStop: ['</answer>'] })), 'x</answer>')
})

test('tokens come with the text that they are part of; none of a stop string, nor the end token', (t) => {
  const pieces = feed([...bytes('éa!?'), end], { stop: ['!?'] })
  t.deepEqual(
    pieces.map(({ tokens }) => tokens.map(({ logProb, offset }) => [-logProb, offset])),
    [[[0, 0]], [[1, 0]], [[2, 1]], [], [], [], []].map((tokens) =>
      tokens.map(([index, at]) => [index!, at!]),
    ),
  )
  const cut = feed([...bytes('ab'), word], { stop: ['.'] })
  t.is(textOf(cut), 'ab>')
  t.deepEqual(
    cut.flatMap(({ tokens }) => tokens.map(({ offset }) => offset)),
    [0, 1, 2],
  )
})

test('a character that was never finished is told at the end', (t) => {
  const pieces = feed(bytes('é').slice(0, 1))
  t.deepEqual(
    pieces.map(({ text }) => text),
    ['', '\ufffd'],
  )
})

test('however a text is cut into tokens, what is given is all before the first stop string', (t) => {
  const letters = fc.array(fc.constantFrom('a', 'b', 'ab', 'abc', 'é'), { maxLength: 30 })
  const stops = fc.array(
    fc
      .array(fc.constantFrom('a', 'b', 'c', 'é'), { minLength: 1, maxLength: 4 })
      .map((part) => part.join('')),
    { maxLength: 3 },
  )
  fc.assert(
    fc.property(letters, stops, (parts, stop) => {
      const text = parts.join('')
      const tokens = parts.flatMap((part) => {
        // 'ab' and 'abc' are tokens; the others are bytes.
        return part.length > 1 ? [tokenizer.tokenId(part)!] : bytes(part)
      })
      const pieces = feed(tokens, { stop })
      // The first to be complete; of those that are complete together, the longest.
      const ends = stop.flatMap((found) => {
        const at = text.indexOf(found)
        return at < 0 ? [] : [{ cut: at, end: at + found.length }]
      })
      const first = ends.sort((a, b) => a.end - b.end || a.cut - b.cut)[0]
      t.is(textOf(pieces), text.slice(0, first?.cut ?? text.length))
    }),
  )
})
