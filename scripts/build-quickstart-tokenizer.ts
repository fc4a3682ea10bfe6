/**
 * Builds assets/quickstart-tokenizer.json: a byte-level BPE learnt from the small world's own text (several seeds), so
 * that a name or a common word is one token, while a tag such as <think> stays several, as in real models.
 * Run once by hand: `npx tsx scripts/build-quickstart-tokenizer.ts`.
 */
import { writeFileSync } from 'node:fs'
import { demonstration, factText } from '../lib/quickstart/demonstrations.ts'
import { createWorld } from '../lib/quickstart/world.ts'
import { Random } from '../lib/random.ts'

// Signs stand alone, so `<`, `/` and `>` never merge with each other.
const pattern = ' ?\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}]|\\s'

/** GPT-2's printable stand-in for each byte. */
function byteAlphabet(): string[] {
  const printable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255)
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++))
}

function countWords(alphabet: string[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (let seed = 0; seed < 20; seed++) {
    const world = createWorld(seed)
    const random = new Random(seed)
    const texts = Array.from({ length: 3 }, () => factText(random, world))
    for (const question of [...world.train, ...world.heldOut]) {
      const { prompt, completion } = demonstration(random, world, question)
      texts.push(prompt + completion)
    }
    for (const text of texts)
      for (const [word] of text.matchAll(new RegExp(pattern, 'gu'))) {
        const symbols = Array.from(Buffer.from(word), (byte) => alphabet[byte]).join('')
        counts.set(symbols, (counts.get(symbols) ?? 0) + 1)
      }
  }
  return counts
}

/** Merges the most frequent pair (ties: the first in code point order) until every frequent word is one token. */
function learnMerges(counts: Map<string, number>): [string, string][] {
  const words = [...counts]
    .filter(([, count]) => count >= 10)
    .map(([word, count]) => ({ parts: [...word], count }))
  const merges: [string, string][] = []
  for (;;) {
    const pairs = new Map<string, number>()
    for (const { parts, count } of words)
      for (let i = 0; i + 1 < parts.length; i++) {
        const pair = `${parts[i]} ${parts[i + 1]}`
        pairs.set(pair, (pairs.get(pair) ?? 0) + count)
      }
    const best = [...pairs].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0]
    if (best === undefined) return merges
    const [left, right] = best[0].split(' ') as [string, string]
    merges.push([left, right])
    for (const word of words) {
      for (let i = 0; i + 1 < word.parts.length; i++)
        if (word.parts[i] === left && word.parts[i + 1] === right) word.parts.splice(i, 2, left + right)
    }
  }
}

const alphabet = byteAlphabet()
const merges = learnMerges(countWords(alphabet))
const special = ['<|end|>']
const tokens = [...special, ...alphabet, ...merges.map(([left, right]) => left + right)]
const tokenizer = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: special.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: null,
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
  post_processor: null,
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries([...new Set(tokens)].map((token, id) => [token, id])),
    merges,
  },
}
writeFileSync(
  new URL('../assets/quickstart-tokenizer.json', import.meta.url),
  `${JSON.stringify(tokenizer)}\n`,
)
process.stdout.write(`${tokens.length} tokens, ${merges.length} merges\n`)
