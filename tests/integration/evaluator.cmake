if(TARGET assay-evaluator)
  assay_test(test_evaluator TIER quick SOURCES test_evaluator.c
    USES assay_wire assay_formats assay_proto m ARGS $<TARGET_FILE:assay-evaluator>)
  add_dependencies(test_evaluator assay-evaluator)
endif()
