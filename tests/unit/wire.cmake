foreach(area calls streams hostile endpoints member)
  assay_test(test_wire_${area} TIER quick SOURCES test_wire_${area}.c test_wire_support.c USES assay_wire)
endforeach()
assay_test(test_wire_silence TIER full SOURCES test_wire_silence.c test_wire_support.c USES assay_wire)
