# Writes OUTPUT, a C file with the bytes of INPUT as `const unsigned char SYMBOL[]` and `const unsigned long SYMBOL_bytes`.
file(READ ${INPUT} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR bytes "${digits} / 2")
string(REGEX REPLACE "(..)" "0x\\1," body "${hex}")
file(WRITE ${OUTPUT} "extern const unsigned char ${SYMBOL}[];\nextern const unsigned long ${SYMBOL}_bytes;\n"
  "const unsigned char ${SYMBOL}[] = {${body}};\nconst unsigned long ${SYMBOL}_bytes = ${bytes};\n")
