import ij.gui.Roi;
import ij.io.RoiDecoder;
import ij.process.ByteProcessor;
import ij.process.ImageProcessor;
import java.io.FileInputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/** Opens a ROI set as ImageJ's ROI manager does. Prints name, kind, pixels and the sum of their places of each ROI. */
public class ReadRois {
    public static void main(String[] args) throws Exception {
        int width = Integer.parseInt(args[1]), height = Integer.parseInt(args[2]);
        ZipInputStream zip = new ZipInputStream(new FileInputStream(args[0]));
        for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
            Roi roi = RoiDecoder.openFromByteArray(zip.readAllBytes());
            ImageProcessor image = new ByteProcessor(width, height);
            image.setValue(1);
            image.fill(roi);
            int count = 0;
            long places = 0;
            for (int place = 0; place < width * height; place++) {
                count += image.get(place);
                places += (long) image.get(place) * place;
            }
            System.out.println(roi.getName() + " " + roi.getTypeAsString() + " " + count + " " + places);
        }
    }
}
