import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { packageRoot } from '../../src/schema/bundle.ts'

/** Node's arguments to run TypeScript in the process itself: a signal to that process reaches the script. */
export const tsx = ['--import', pathToFileURL(join(packageRoot(), 'node_modules', 'tsx', 'dist', 'loader.mjs')).href]
