import { attention } from './attention.ts'
import { attentionBackward } from './attention-backward.ts'
import { losses } from './losses.ts'
import type { Mutant } from './mutant.ts'
import { optimizer } from './optimizer.ts'
import { products } from './products.ts'
import { rows } from './rows.ts'
import { sampling } from './sampling.ts'

export const mutants: Mutant[] = [
  ...products,
  ...rows,
  ...attention,
  ...attentionBackward,
  ...losses,
  ...sampling,
  ...optimizer,
]
