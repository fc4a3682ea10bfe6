// Demonstrations whose search an index answered, laid out as training lays them out: search-demonstrations.ts INDEX K MODEL
// TOKENS FILE > demonstrations.jsonl. Thought, query and answer are written by a template; K documents of at most TOKENS
// tokens stand in between, encoded as MODEL does it. Questions whose answer the documents do not hold are left out.
import { loadQuestions } from '../lib/data/questions.ts'
import { Tokenizer } from '../lib/policy/tokenizer.ts'
import { coverExactMatchScore } from '../lib/rewards/answers.ts'
import { LocalIndex } from '../lib/search/local-index.ts'
import { informationBlock } from '../lib/search/sanitize.ts'
import { bootstrapFromTemplate } from '../lib/training/bootstrap.ts'

const [directory, count, model, tokens, file] = process.argv.slice(2)
const tokenizer = model === undefined ? null : await Tokenizer.fromFolder(model)
if (directory === undefined || file === undefined || tokenizer === null) {
  console.error(
    'usage: npx tsx scripts/search-demonstrations.ts INDEX K MODEL TOKENS FILE > demonstrations.jsonl',
  )
  process.exit(2)
}
const index = await LocalIndex.open(directory)
const options = {
  layout: 'numbered',
  maxDocumentTokens: Number(tokens),
  maxTokens: Number.POSITIVE_INFINITY,
  overshoot: '',
} as const
for (const demonstration of bootstrapFromTemplate(await loadQuestions(file))) {
  const query = demonstration.completion.match(/<search>(.*?)<\/search>/)![1]!.trim()
  const block = tokenizer.decode(informationBlock(tokenizer, index.search(query, Number(count)), options)!)
  if (coverExactMatchScore(block, demonstration.golden_answers) === 0) continue
  const completion = demonstration.completion.replace(/<information>.*<\/information>/, () => block)
  process.stdout.write(`${JSON.stringify({ ...demonstration, completion })}\n`)
}
index.close()
