/** A made-up corpus of any size, and queries about it: words as often as in a language, always the same ones. */
import { Random } from '../lib/random.ts'
import type { Passage } from '../lib/search/local-index.ts'
import { stopWords } from '../lib/search/stop-words.ts'

const vocabularySize = 200_000
/** The most frequent words are function words, and then every other one, as in English. */
const onlyFunctionWords = 40
const wordsOfPassage = 100
const wordsOfTitle = 2

const functionWords = [...stopWords]
const syllables = [
  'ba',
  'ce',
  'di',
  'fo',
  'gu',
  'ha',
  'je',
  'ki',
  'lo',
  'mu',
  'na',
  'pe',
  'ri',
  'so',
  'tu',
  'va',
]

/** The word of a rank; frequent words are short. */
function word(rank: number): string {
  const functional = rank < onlyFunctionWords ? rank : (rank + onlyFunctionWords) / 2
  if (functional < functionWords.length && Number.isInteger(functional)) return functionWords[functional]!
  let text = ''
  for (let rest = rank; rest > 0; rest = Math.floor(rest / syllables.length)) {
    text += syllables[rest % syllables.length]
  }
  return text
}

const vocabulary = Array.from({ length: vocabularySize }, (_, rank) => word(rank))

/** Zipf's law: the probability of a rank is as 1 over it. */
const zipf = (random: Random) => vocabulary[Math.floor(vocabularySize ** random.next()) - 1]!

const rare = (random: Random) => vocabulary[Math.floor((0.1 + 0.9 * random.next()) * vocabularySize)]!

/** One passage: a title of rare words, and a text of about the length that open-domain corpora are cut to. */
function passage(index: number): Passage {
  const random = new Random(index)
  const title = Array.from({ length: wordsOfTitle }, () => rare(random)).join(' ')
  const text = Array.from({ length: wordsOfPassage }, () => zipf(random)).join(' ')
  return { id: String(index), title, text }
}

export function* passages(count: number): Generator<Passage> {
  for (let index = 0; index < count; index++) yield passage(index)
}

/**
 * Queries that are as hard as questions of people: those of HotpotQA share a word with 19 % of all Wikipedia passages,
 * function words aside. One word of a passage's title and six of its text.
 */
export function queries(count: number, corpusSize: number): string[] {
  const random = new Random(corpusSize)
  return Array.from({ length: count }, () => {
    const { title, text } = passage(random.integer(corpusSize))
    const words = text.split(' ').filter((word) => !stopWords.has(word))
    const asked = random.shuffle(words).slice(0, 6)
    return [random.choice(title!.split(' ')), ...asked].join(' ')
  })
}
