/** Answer normalisation as published question-answering scores have it (SQuAD's, as FlashRAG and Search-R1 use it). */
import { splitWords } from './python-text.ts'

// Python's `\b` sees a word character in every letter and number of Unicode and in the underscore, and in no
// combining mark: "e" + U+0301 ends the word after "e".
const ARTICLES = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu
const ASCII_PUNCTUATION = /[!-/:-@[-`{-~]/g

/** Lower case, the 32 ASCII punctuation signs removed, then the words a, an and the, then white space collapsed. */
export function normalizeAnswer(text: string): string {
  const bare = text.toLowerCase().replace(ASCII_PUNCTUATION, '').replace(ARTICLES, ' ')
  return splitWords(bare).join(' ')
}
