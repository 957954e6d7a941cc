/** wgsl-preprocessor 1.0.1 ships no types. */
export function wgsl(strings: TemplateStringsArray, ...values: (string | number | boolean)[]): string;
