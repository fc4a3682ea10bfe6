import { cp, mkdir } from 'node:fs/promises'
import path from 'node:path'
import { bytesToByteLevel } from '../../lib/policy/byte-decoder.ts'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'

const control = 3
const normal = 1

/** A byte-level tokenizer of this many ids: three control tokens, the 256 bytes, pairs of letters; no text has the rest. */
export function byteTokenizer(vocabSize: number): Tokenizer {
  const letters = [...'etaoinshrdlucmfwypvbgkjqxz']
  const pairs = letters.flatMap((first) => letters.map((second) => [first, second]))
  const merges = pairs.slice(0, vocabSize - 259)
  const tokens = [
    ...['<unk>', '<s>', '</s>'],
    ...Array.from({ length: 256 }, (_, byte) => bytesToByteLevel(Uint8Array.of(byte))),
    ...merges.map((pair) => pair.join('')),
    ...Array.from({ length: vocabSize - 259 - merges.length }, (_, i) => `spare${i}`),
  ]
  return Tokenizer.fromGguf({
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': tokens.map((_, id) => (id < 3 ? control : normal)),
    'tokenizer.ggml.merges': merges.map((pair) => pair.join(' ')),
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
    'tokenizer.ggml.add_bos_token': false,
  })!
}

/** A copy of a model folder with a tokenizer in it. */
export async function withTokenizer(source: string, target: string, vocabSize: number): Promise<string> {
  await mkdir(target, { recursive: true })
  for (const name of ['config.json', 'generation_config.json', 'model.safetensors']) {
    await cp(path.join(source, name), path.join(target, name))
  }
  await byteTokenizer(vocabSize).save(target)
  return target
}
