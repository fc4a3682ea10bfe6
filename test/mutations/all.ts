import { attention } from './attention.ts'
import { attentionBackward } from './attention-backward.ts'
import { head } from './head.ts'
import type { Mutant } from './mutant.ts'
import { products } from './products.ts'
import { rows } from './rows.ts'

export const mutants: Mutant[] = [...products, ...rows, ...attention, ...attentionBackward, ...head]
